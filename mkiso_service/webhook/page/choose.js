// What of the studies on the screen goes onto the disc: all, unless a clerk takes ticks away. The disc says where it isn't everything.
import { counted, day, gettext, ngettext } from "/page/words.js";

const $ = (id) => document.getElementById(id);
let whose = null;

// A study is offered with its series where there is more than one thing to choose from.
export function begin(preview, changed) {
  whose = preview;
  const { studies } = preview;
  const mayChoose = studies.length > 1 || studies.some((study) => study.series.length > 1);
  $("choose").hidden = !mayChoose;
  $("choose").open = mayChoose && preview.is_part;
  $("choices").replaceChildren(...(mayChoose ? studies.map(group) : []));
  for (const box of boxes(".study")) tickStudy(box);
  $("choices").onchange = (event) => {
    const box = event.target;
    const study = box.closest("fieldset");
    if (box.matches(".study")) for (const each of study.querySelectorAll("input.series-box")) each.checked = box.checked;
    tickStudy(study.querySelector("input.study"));
    changed();
  };
}

function boxes(selector) { return [...$("choices").querySelectorAll(`input${selector}`)]; }

function group(study) {
  const patient = document.createElement("fieldset");
  const facts = [study.accession_number, day(study.study_date), study.modalities.join(", "), study.study_description];
  const series = study.more_series || study.series.length < 2 ? [] : study.series;
  patient.append(
    Object.assign(document.createElement("legend"), { textContent: facts.filter(Boolean).join(" · ") }),
    line("study", study.study_instance_uid, gettext("The whole study"), true),
    ...series.map((each) => line("series-box", each.series_instance_uid, words(each), each.chosen)),
  );
  return patient;
}

function words(series) {
  const number = series.number && gettext("Series %(number)s", { number: series.number });
  const images = series.images === null ? "" : counted(series.images, [{ modalities: [series.modality] }]);
  return [number, series.modality, series.description, images].filter(Boolean).join(" · ");
}

function line(kind, uid, text, checked) {
  const label = Object.assign(document.createElement("label"), { className: kind === "study" ? "choice" : "choice series" });
  label.append(Object.assign(document.createElement("input"), { type: "checkbox", className: kind, value: uid, checked }),
    Object.assign(document.createElement("span"), { textContent: text }));
  return label;
}

function tickStudy(box) {
  const series = [...box.closest("fieldset").querySelectorAll("input.series-box")];
  if (!series.length) return;
  box.checked = series.every((each) => each.checked);
  box.indeterminate = !box.checked && series.some((each) => each.checked);
}

// What is asked for: {question, words, empty}. `words` say that it isn't everything; nothing is ticked where it is `empty`.
export function chosen() {
  const { question, studies } = whose;
  const ticks = boxes(".study").map((box) => [box, [...box.closest("fieldset").querySelectorAll("input.series-box")]]);
  if (!ticks.length) return { question, words: whose.is_part ? part(false) : "", empty: false };
  const state = new Map(ticks.map(([box, series]) => [box.value, {
    some: box.checked || box.indeterminate, series: box.checked ? [] : series.filter((each) => each.checked).map((each) => each.value),
  }]));
  const on = studies.filter((study) => state.get(study.study_instance_uid).some);
  const off = studies.filter((study) => !on.includes(study));
  const numbers = question.numbers.filter((number) => on.some((study) => study.accession_number === number));
  const divided = off.some((study) => numbers.includes(study.accession_number));
  const byUid = !question.numbers.length || question.studies.length || divided;
  const boxed = new Set(ticks.flatMap(([, all]) => all.map((box) => box.value)));
  const unseen = question.series.filter((uid) => !boxed.has(uid)); // asked for and not offered here: without them their study would be meant whole
  const series = [...on.flatMap((study) => state.get(study.study_instance_uid).series), ...unseen];
  paint(off);
  const leaves = ticks.flatMap(([box, all]) => (all.length ? all : [box]));
  const left = leaves.filter((box) => !box.checked).length;
  const isPart = divided || series.length > 0 || whose.is_part;
  const said = !on.length ? gettext("Tick at least one series.") : left || isPart ? part(isPart, leaves.length - left, leaves.length) : "";
  return { question: { numbers, studies: byUid ? on.map((study) => study.study_instance_uid) : [], series }, words: said, empty: !on.length };
}

function part(isPart, number, all) {
  const what = number === undefined || number === all ? gettext("Not the whole study goes onto the disc.")
    : ngettext("Only %(number)s of %(all)s series goes onto the disc.", "Only %(number)s of %(all)s series go onto the disc.", number, { all });
  return isPart ? [what, gettext("The disc says that it isn't everything.")].join(" ") : what;
}

function paint(off) {
  for (const [index, row] of [...$("whose").querySelectorAll("tbody tr")].entries()) row.classList.toggle("out", off.includes(whose.studies[index]));
}
