// The search by what a clerk knows of the patient. Studies are ticked, of one patient at a time, and looked up like typed numbers: nothing is made of what
// this list shows.
import { call, say } from "/page/discs.js";
import { SEXES, advice, counted, day, gettext, ngettext } from "/page/words.js";

const $ = (id) => document.getElementById(id);
const KEYS = { "known-id": "patient_id", "known-name": "patient_name", "known-born": "birth_date", "known-kind": "modality" };
const wantsBirthDate = document.documentElement.dataset.birthDate === "yes";
let turn = 0;

// `look(question, birthDate)` shows whose they are.
export function begin(look) {
  $("seek").hidden = false;
  $("seek").addEventListener("toggle", () => { if ($("seek").open) $("known-id").focus(); });
  $("known").addEventListener("input", () => { $("missed").textContent = ""; });
  $("known").addEventListener("submit", (event) => { event.preventDefault(); search(look); });
  $("hits").addEventListener("change", () => { $("unticked").textContent = ""; only(); });
  $("hits").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = chosen();
    $("unticked").textContent = question ? "" : gettext("Tick at least one study.");
    if (question) look(question, $("known-born").value);
  });
}

export function clear() {
  turn += 1;
  $("known").reset();
  $("hits").hidden = true;
  $("patients").replaceChildren();
  $("missed").textContent = "";
  $("seek").open = false;
}

async function search(look) {
  const asked = ++turn;
  const query = new URLSearchParams();
  for (const [id, key] of Object.entries(KEYS)) if ($(id).value.trim()) query.set(key, $(id).value.trim());
  const [from, to] = [$("known-from").value, $("known-to").value];
  if (from || to) query.set("study_date", from === to ? from : `${from}/${to}`);
  $("hits").hidden = true;
  const enough = ["patient_id", "patient_name", "study_date"].some((key) => query.has(key));
  $("missed").textContent = enough ? ""
    : gettext("Give a patient ID, the beginning of a name, or a day of the study: a birth date or a kind alone fits too many.");
  if (!enough) {
    $("known-name").focus();
    return;
  }
  if (wantsBirthDate && !query.has("birth_date")) {
    $("missed").textContent = gettext("Type the patient's birth date too: ask for it, don't read it from a list.");
    $("known-born").focus();
    return;
  }
  say(gettext("Searching."), true);
  const { body, error } = await call(`/api/studies?${query}`);
  if (asked !== turn) return;
  say("");
  if (error) $("missed").textContent = advice("search", error);
  else if (!body.studies.length) {
    const none = body.more ? gettext("Too many studies fit to find this one among them: give more of what you know.")
      : gettext("The PACS knows no such study. Give less of the name, or check the dates.");
    $("missed").textContent = [none, ...unasked(body)].join(" ");
  }
  else {
    show(body);
    const [study] = body.studies;
    if (body.studies.length === 1 && !unasked(body).length) {
      $("hits").querySelector("input").checked = true;
      look(chosen(), $("known-born").value);
    }
    else $("hits").querySelector("input:enabled")?.focus();
  }
}

function unasked(body) { return (body.not_asked || []).map(({ source }) => gettext("The PACS %(source)s couldn't be asked: it may have more studies.", { source })); }

function show(body) {
  const { studies, more } = body;
  const found = ngettext("%(number)s study found.", "%(number)s studies found.", studies.length);
  const patients = Map.groupBy ? Map.groupBy(studies, whose) : studies.reduce((all, study) => all.set(whose(study), [...(all.get(whose(study)) || []), study]), new Map());
  $("patients").replaceChildren(...[...patients.values()].map(group));
  $("found").textContent = [found, studies.length > 1 && gettext("Tick those for the disc, of one patient."), more && gettext("There may be more: give more of what you know."), ...unasked(body)].filter(Boolean).join(" ");
  $("unticked").textContent = "";
  $("hits").hidden = false;
  say(found);
}

function whose(study) { return JSON.stringify([study.source, study.patient_id]); }

function group(studies) {
  const [first] = studies;
  const patient = document.createElement("fieldset");
  const born = first.birth_date && gettext("born %(date)s", { date: day(first.birth_date) });
  const facts = [first.patient_name || gettext("(no name in the PACS)"), born, SEXES[first.sex] || first.sex, first.patient_id];
  patient.append(Object.assign(document.createElement("legend"), { textContent: facts.filter(Boolean).join(", ") }), ...studies.map(line));
  return patient;
}

function line(study) {
  const box = Object.assign(document.createElement("input"), { type: "checkbox", value: study.study_instance_uid });
  box.dataset.whose = whose(study);
  box.dataset.number = study.accession_number;
  const words = [day(study.study_date), study.modalities.join(", "), study.study_description, study.images === null ? "" : counted(study.images, [study]),
    study.accession_number || gettext("no accession number")];
  const label = Object.assign(document.createElement("label"), { className: "choice" });
  const text = Object.assign(document.createElement("span"), { textContent: words.filter(Boolean).join(" · ") });
  label.append(box, text);
  return label;
}

function ticked() { return [...$("patients").querySelectorAll("input:checked")]; }

// The question that the ticks ask: by accession numbers where every study has one, and by UIDs where one hasn't, or shares its number with one that isn't
// ticked. Null where nothing is ticked.
function chosen() {
  const on = ticked();
  const numbers = [...new Set(on.map((box) => box.dataset.number))];
  const others = [...$("patients").querySelectorAll("input:not(:checked)")].filter((box) => box.dataset.whose === on[0]?.dataset.whose);
  const named = !numbers.includes("");
  const divided = others.some((box) => numbers.includes(box.dataset.number));
  const studies = named && !divided ? [] : on.map((box) => box.value);
  return on.length ? { numbers: named ? numbers : [], studies, series: [] } : null;
}

// A disc is of one patient: as long as a study is ticked, those of other patients can't be.
function only() {
  const [one] = ticked();
  for (const box of $("patients").querySelectorAll("input")) box.disabled = Boolean(one && box.dataset.whose !== one.dataset.whose);
}
