// The counter page: a number, whose disc it is, and yes. A disc is asked for only with the patient on the screen, and with `shown`: the service makes one
// of this patient and of nobody else.
import { begin, call, follow, isEncrypted, isWaiting, paintRows, put, robot, say, watchRobots } from "/page/discs.js";
import { begin as beginChoice, chosen as chosenParts } from "/page/choose.js";
import { begin as beginSearch, clear as clearSearch } from "/page/search.js";
import { SEXES, advice, ago, counted, day, gettext, isOfPriors, ngettext, without } from "/page/words.js";

const $ = (id) => document.getElementById(id);
const field = $("numbers");
const several = $("several");
const site = document.documentElement.dataset;
const publishers = JSON.parse(site.publishers || "[]");
const wantsBirthDate = site.birthDate === "yes";
let whose = null; // who is on the screen: the preview, the question, the birth date that was typed, and what is asked again
let appeared = 0; // when, on the clock of the page's events, in ms
let looks = 0;
let asking = []; // the numbers of whom it is about, until the disc is asked for
let pending = null; // what is asked again as soon as the birth date is typed
let refused = false; // whether the problem is of a disc that was asked for: the next number may be typed before it is told

// A question has the accession numbers, and the UIDs of the studies and series that alone are meant; empty: all of them.
async function look(question, birthDate, again = null) {
  const turn = ++looks;
  leave();
  refused = false;
  $("problem").textContent = "";
  asking = question.numbers;
  say(gettext("Looking up the patient."), true);
  const query = withSelection(new URLSearchParams({ accession_number: question.numbers.join(","), ...(birthDate && { birth_date: birthDate }), ...(site.priors && { priors: "true" }) }), question);
  const { body, error } = await call(`/api/iso/preview?${query}`);
  if (turn !== looks) return; // the next number has been asked for meanwhile
  say("");
  $("problem").textContent = error ? [advice("preview", error), mayBeSeveral(question, error)].filter(Boolean).join(" ") : "";
  if (error) {
    if (!field.value) {
      field.value = question.numbers.join(question.numbers.includes("") ? "," : "\n"); // as it was typed
      if (question.numbers.length === 1) field.select(); // the next scan takes its place; of a list only one may be wrong
    }
    return;
  }
  whose = { ...body, question, birthDate, again };
  show();
}

// A number may have a space or such a sign in it, so two that are divided by one are looked up as one.
function mayBeSeveral({ numbers }, { code }) {
  const isNone = ["study_not_found", "invalid_accession_number"].includes(code) && numbers.some((number) => /[\s;/+&|，、；]/.test(number));
  return isNone ? gettext("If these are several numbers, write an ordinary comma (,) between them.") : "";
}

function withSelection(query, { studies, series }) {
  for (const uid of studies) query.append("study_uid", uid);
  for (const uid of series) query.append("series_uid", uid);
  return query;
}

function leave() {
  whose = null;
  document.documentElement.style.scrollPaddingTop = "";
  $("stored").checked = false;
  $("not-offered")?.remove();
  document.querySelector("#formats input").checked = true; // the next patient's is what it is unless somebody chooses
  $("whose").hidden = true;
}

function show() {
  const { patient, studies, again, ordered, unclear } = whose;
  put($("whose"), ".name", patient.name || gettext("(no name in the PACS)"));
  const facts = [
    [gettext("Born"), day(patient.birth_date) || gettext("not known")],
    [gettext("Sex"), SEXES[patient.sex] || patient.sex || gettext("not known")],
    [gettext("Patient ID"), patient.patient_id],
  ];
  $("whose").querySelector(".facts").replaceChildren(...facts.map(([what, value]) => {
    const fact = document.createElement("div");
    for (const [tag, text] of [["dt", what], ["dd", value]]) fact.append(Object.assign(document.createElement(tag), { textContent: text }));
    return fact;
  }));
  const lacks = without(whose.degraded.filter((lack) => !isOfPriors(lack)));
  put($("whose"), ".on-disc", [patient.name_on_disc !== patient.name && gettext("On the disc: %(name)s", { name: patient.name_on_disc }), ...lacks].filter(Boolean).join(" "));
  put($("whose"), ".ordered", ordered && publishers.length ? ngettext("There is %(number)s earlier order of this disc: %(facts)s.", "There are %(number)s earlier orders of this disc, last: %(facts)s.", ordered.orders,
    { facts: factsOf(ordered) }) : "");
  put($("whose"), ".unclear", unclear && publishers.length
    ? [gettext("An earlier order of this disc ended unclear: %(facts)s.", { facts: factsOf(unclear) }), advice("preview", { code: "print_uncertain" })].join(" ") : "");
  paintRows($("whose"), [...studies, ...whose.priors.map((study) => ({ ...study, is_prior: true }))], (study) => (study.images === null ? gettext("not counted") : counted(study.images, [study])));
  beginChoice(whose, offer);
  beginPriors();
  if (again) asBefore(again);
  offer();
  appeared = performance.now();
  $("whose").hidden = false;
  document.documentElement.style.scrollPaddingTop = `${$("who").offsetHeight + 8}px`; // what has the focus isn't behind the patient
  $(expected()).focus();
}

// What is asked again is what it was: nobody gets an open file by an Enter where an encrypted one was made.
function asBefore({ kind, publisher, format, transfer_syntax: stored }) {
  const [named, value] = kind === "print" ? ["#publishers", publisher] : ["#formats", format];
  if (kind !== "print" && isEncrypted(format) && !document.querySelector(`#formats input[value="${format}"]`)) { // a program asked for what isn't offered here
    const choice = $("formats").querySelector("label").cloneNode(true);
    choice.id = "not-offered";
    choice.querySelector("input").value = format;
    choice.lastChild.textContent = ` ${format}`;
    $("formats").querySelector("label").before(choice);
  }
  for (const choice of document.querySelectorAll(`${named} input[type="radio"]`)) choice.checked = choice.value === value || choice.checked;
  $("stored").checked = stored === $("stored").value;
}

function factsOf(order) { return [ago(order.minutes), order.publisher, ...order.who].join(", "); }

// The button that Enter presses: nobody has a second disc made by an Enter too many.
function expected() {
  const { again, ordered, unclear } = whose;
  return (ordered || unclear) && first() !== "make" && !again?.looked ? "back" : first();
}

function first() {
  const { again } = whose;
  return again ? (again.kind === "print" ? "print" : "make") : { file: "make", robot: "print", both: "both" }[site.action];
}

// Earlier examinations are ticked where the site says so, or where they were asked for before.
function beginPriors() {
  const { priors, degraded, question } = whose;
  const words = ngettext("With %(number)s earlier examination for comparison.", "With %(number)s earlier examinations for comparison.", priors.length);
  const lacks = without(degraded.filter(isOfPriors));
  $("with-priors").hidden = !priors.length && !lacks.length;
  $("with-priors").querySelector("span").textContent = [priors.length ? words : gettext("With earlier examinations: none was found."), ...lacks].join(" ");
  $("priors").checked = !$("with-priors").hidden && (question.priors ?? site.priors === "ticked");
}

function chosen() { return document.querySelector("#publishers input:checked")?.value || publishers[0]; }

// What the file is to be; empty where it is what it always was.
function chosenFormat() {
  const { value } = document.querySelector("#formats input:checked");
  return value === "iso" ? "" : value;
}

// The buttons for who is on the screen, and how the disc robot is.
function offer() {
  if (!whose) return;
  const { again, ordered, unclear } = whose;
  const isFile = again?.kind === "download";
  const isPrint = again?.kind === "print";
  const offersRobot = publishers.length > 0 && !isFile;
  const publisher = chosen();
  $("publishers").hidden = publishers.length < 2 || isFile;
  $("make").hidden = $("formats").hidden = isPrint;
  $("print").hidden = !offersRobot;
  $("print").textContent = unclear ? gettext("I have looked: have %(publisher)s make it again", { publisher })
    : ordered ? gettext("Yes, have %(publisher)s make another disc", { publisher }) : gettext("Yes, have %(publisher)s make a disc", { publisher });
  $("both").hidden = !offersRobot || isPrint || Boolean(unclear) || site.action !== "both"; // who has looked says so of the print alone
  $("both").textContent = ordered ? gettext("Yes, make the file and have %(publisher)s make another disc", { publisher })
    : gettext("Yes, make the file and have %(publisher)s make a disc", { publisher });
  const parts = chosenParts();
  const rows = [...$("whose").querySelectorAll("tbody tr")];
  for (const row of rows.slice(whose.studies.length)) row.classList.toggle("out", !$("priors").checked);
  for (const id of ["both", "make", "print"]) {
    $(id).classList.toggle("second", id !== first());
    $(id).disabled = parts.empty;
  }
  $("part").textContent = parts.words;
  $("part").hidden = !parts.words;
  const state = offersRobot && robot(publisher);
  const trouble = state && !state.ok ? state.detail : "";
  $("robot").hidden = $("trouble").hidden = !trouble;
  $("robot").textContent = trouble ? gettext("%(publisher)s can't take an order now. Check that it is on; if it is, tell the administrator.", { publisher }) : "";
  put($("trouble"), "p", trouble);
  const name = offersRobot ? whose.labels[publisher] : undefined;
  $("label").hidden = name === undefined;
  $("label").textContent = name ? gettext("On the label of %(publisher)s: %(name)s", { publisher, name })
    : gettext("The label of %(publisher)s can't show this name, so it makes no disc.", { publisher });
}

async function order(...kinds) {
  const { birthDate, shown, again, unclear } = whose;
  const question = { ...chosenParts().question, priors: $("priors").checked };
  const isAsLookedUp = ["numbers", "studies", "series"].every((part) => [...question[part]].sort().join() === [...whose.question[part]].sort().join());
  const ordersTold = isAsLookedUp ? whose.ordered?.orders ?? 0 : undefined; // how often what was chosen of it was ordered before, nobody was told
  const publisher = chosen();
  const format = chosenFormat();
  const stored = $("stored").checked && $("stored").value;
  leave();
  clearSearch(); // nobody sees the patient before
  field.focus(); // the next number may be scanned at once. Asking twice is harmless, the second joins the first.
  for (const kind of kinds) {
    const looked = Boolean(unclear || (again?.looked && again.kind === kind && again.publisher === publisher)); // as the button says
    const problem = await ask(kind, { question, ...(kind === "print" ? { publisher, ordersTold, looked, stored: again?.kind === kind && stored } : { format, stored }), language: again?.language, shown, birthDate });
    $("problem").textContent = problem;
    refused = Boolean(problem);
    if (problem) return;
  }
  if (asking === question.numbers) asking = [];
}

async function ask(kind, { question, format, stored, language, publisher, ordersTold, shown, birthDate, looked }) { // `looked`: at the robot, where an earlier order ended unclear
  const { numbers } = question;
  const several = kind === "download" && numbers.length > 1;
  const query = new URLSearchParams({
    [several ? "accession_numbers" : "accession_number"]: numbers.join(","),
    shown,
    ...(birthDate && { birth_date: birthDate }),
    ...(format && { format }),
    ...(stored && { transfer_syntax: stored }),
    ...(language && { language }),
    ...(publisher && { publisher }),
    ...(ordersTold !== undefined && { orders_told: ordersTold }),
    ...(looked && { confirm_reprint: "true" }),
    ...(site.priors && { priors: String(question.priors) }),
  });
  withSelection(query, question);
  const address = `/api/iso/${kind === "print" ? "print" : several ? "download-multiple" : "download"}?${query}`;
  const { body, error } = await call(address, { method: kind === "print" ? "POST" : "GET", headers: { Prefer: "respond-async" } });
  if (error) return advice(kind, error);
  follow(body);
  return "";
}

function askAgain(question, again) {
  field.focus();
  if (!wantsBirthDate) {
    look(question, "", again);
    return;
  }
  field.value = question.numbers.join("\n");
  pending = { question, again };
  $("birth-date").focus();
}

// Between commas, and between the tabs of a row that comes from a table, an empty place is left in: the service refuses it, since it may stand for a study
// that somebody wanted. A number can have neither in it; a semicolon it can.
function asked(text) {
  return [...new Set(text.split("\n").filter((line) => line.trim()).flatMap((line) => line.trim().split(/[,\t]/)).map((number) => number.trim()))];
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const numbers = asked(field.value);
  const birthDate = wantsBirthDate ? $("birth-date").value : "";
  field.focus();
  const isPending = pending?.question.numbers.join() === numbers.join();
  if (!numbers.some(Boolean) && !isPending) $("problem").textContent = gettext("Type or scan an accession number first.");
  else if (wantsBirthDate && !birthDate) {
    $("problem").textContent = gettext("Type the patient's birth date too: ask for it, don't read it from a list.");
    $("birth-date").focus();
  } else {
    const { question, again } = isPending ? pending : { question: { numbers, studies: [], series: [] }, again: null };
    pending = null;
    field.value = ""; // at once: the next number may be scanned already
    $("birth-date").value = "";
    several.checked = false;
    explain();
    look(question, birthDate, again);
  }
});
$("ask").addEventListener("input", () => { if (!refused) $("problem").textContent = ""; }); // that was about another number
$("priors").addEventListener("change", offer);
$("both").addEventListener("click", () => order("download", "print"));
$("make").addEventListener("click", () => order("download"));
$("print").addEventListener("click", () => order("print"));
$("back").addEventListener("click", () => { leave(); asking = []; field.focus(); });
$("whose").addEventListener("keydown", (event) => { // a choice is made, and Enter goes on, as in any form
  if (event.key !== "Enter" || !event.target.matches("input")) return;
  event.preventDefault();
  if (expected() === "back") $("back").focus();
  else $(expected()).click();
});

// A scanner ends a number with Enter: that asks. With several on one disc it begins another line, and an empty line asks.
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  const line = field.value.slice(field.value.lastIndexOf("\n", field.selectionStart - 1) + 1, field.selectionStart);
  if (several.checked && line.trim()) return;
  event.preventDefault();
  if (!field.value.trim()) { // a scanner may send two: the second has nothing to ask, and disturbs nothing
    const isIdle = !whose && !asking.length && !pending && !isWaiting() && !$("problem").textContent && !event.repeat;
    if (isIdle) $("problem").textContent = gettext("Type or scan an accession number first.");
    return;
  }
  if (wantsBirthDate && !$("birth-date").value) $("birth-date").focus(); else $("ask").requestSubmit();
});
$("birth-date").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("ask").requestSubmit();
});

// Nobody has read in half a second who appeared: an Enter that was on its way (some scanners send two), or that is held down, doesn't say yes.
document.addEventListener("keydown", (event) => {
  const isUnseen = event.timeStamp < appeared + 500 && event.target.closest("#whose");
  const isHeld = event.repeat && event.target.closest("#whose, dialog");
  if (!["Enter", " "].includes(event.key) || !(isUnseen || isHeld)) return;
  event.preventDefault();
  event.stopPropagation();
}, true);

// A scanner types wherever the focus is: its letters belong into the field, and its Enter must not press a button that somebody left the focus on.
document.addEventListener("keydown", (event) => {
  const focus = document.activeElement;
  if (event.key === "Escape" && whose) $("back").click();
  const isPasted = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "v";
  const typed = event.key.length === 1 && event.key !== " " && !event.altKey && (isPasted || !(event.ctrlKey || event.metaKey));
  if (typed && !focus.matches("textarea, input:not([type=checkbox], [type=radio])") && !focus.closest("dialog")) field.focus();
});

function explain() {
  $("hint").textContent = several.checked ? gettext("Type or scan each on its own line; Enter on an empty line shows the patient.")
    : gettext("Type or scan it, then press Enter.");
  several.closest("form").querySelector("label").textContent = several.checked ? gettext("Accession numbers") : gettext("Accession number");
}
several.addEventListener("change", () => { explain(); field.focus(); });

function offerPublishers() {
  if (site.action === "robot") $("make").before($("print"));
  if (publishers.length < 2) return;
  const kept = sessionStorage.getItem("publisher");
  for (const name of publishers) {
    const label = document.createElement("label");
    const choice = Object.assign(document.createElement("input"), { type: "radio", name: "publisher", value: name });
    choice.checked = name === (publishers.includes(kept) ? kept : publishers[0]);
    choice.addEventListener("change", () => { sessionStorage.setItem("publisher", name); offer(); });
    label.className = "choice";
    label.append(choice, ` ${name}`);
    $("publishers").append(label);
  }
}

if (site.signOut) $("sign-out").hidden = false;
$("sign-out").addEventListener("submit", () => sessionStorage.clear()); // the next clerk begins with nothing
$("born").hidden = !wantsBirthDate;
explain();
offerPublishers();
field.value = sessionStorage.getItem("unsent") || "";
sessionStorage.removeItem("unsent");
begin(askAgain, () => field.value || asking.join("\n"));
if (site.search) beginSearch((question, birthDate) => look(question, wantsBirthDate ? birthDate : ""));
if (publishers.length) watchRobots(publishers, offer);
