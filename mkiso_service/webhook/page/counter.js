// The counter page: asks for a disc, follows the job, and offers the result. The jobs of this browser session are kept in sessionStorage by their
// ids and numbers; everything else is asked again, since a disc's file name may be a patient's.
import { SEXES, advice, ago, count, day, mustLook, size, without } from "/page/words.js";

const POLL_MS = 1000;
const KEPT = 30;
const $ = (id) => document.getElementById(id);
const field = $("numbers");
const several = $("several");
const publishers = JSON.parse(document.documentElement.dataset.publishers || "[]");
const jobs = JSON.parse(sessionStorage.getItem("jobs") || "[]");
const shown = new Map();

function save() {
  jobs.splice(KEPT);
  sessionStorage.setItem("jobs", JSON.stringify(jobs.map(({ told, ...kept }) => kept)));
}

function say(words) { $("announce").textContent = words; }

async function call(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { cache: "no-store", ...options });
  } catch {
    return { error: { code: "unreachable" } };
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) location.reload(); // the session has ended: the sign-in comes
  return answer.ok ? { body } : { error: body };
}

// Who is on the screen: the preview, the birth date that was typed, and what failed before and is asked again. A disc is asked for only from here, with
// `shown`: the service then makes one of this patient and of nobody else.
let whose = null;
let looks = 0;

async function look(numbers, birthDate, again = null) {
  const turn = ++looks;
  leave();
  say("Looking up the patient.");
  const query = new URLSearchParams({ accession_number: numbers.join(","), ...(birthDate && { birth_date: birthDate }) });
  const { body, error } = await call(`/api/iso/preview?${query}`);
  if (turn !== looks) return; // the next number has been asked for meanwhile
  $("problem").textContent = error ? advice("preview", error) : "";
  if (error) {
    if (!field.value) field.value = numbers.join("\n");
    return;
  }
  whose = { ...body, numbers, birthDate, again };
  show();
}

function leave() {
  whose = null;
  $("whose").hidden = true;
}

function show() {
  const { patient, studies, again } = whose;
  put($("whose"), ".name", patient.name || "(no name in the PACS)");
  const facts = { Born: day(patient.birth_date) || "not known", Sex: SEXES[patient.sex] || patient.sex || "not known", "Patient ID": patient.patient_id };
  $("whose").querySelector(".facts").replaceChildren(...Object.entries(facts).map(([what, value]) => {
    const fact = document.createElement("div");
    for (const [tag, text] of [["dt", what], ["dd", value]]) fact.append(Object.assign(document.createElement(tag), { textContent: text }));
    return fact;
  }));
  put($("whose"), ".on-disc", [patient.name_on_disc !== patient.name && `On the disc: ${patient.name_on_disc}`, ...without(whose.degraded)].filter(Boolean).join(" "));
  paintRows($("whose"), studies, (study) => (study.images === null ? "not counted" : count(study.images, "image")));
  $("publishers").hidden = publishers.length < 2 || again?.kind === "download";
  if (again?.publisher) for (const choice of document.querySelectorAll("#publishers input")) choice.checked = choice.value === again.publisher;
  $("make").hidden = again?.kind === "print";
  if ($("print")) $("print").hidden = again?.kind === "download";
  if ($("print")) $("print").classList.toggle("second", again?.kind !== "print");
  $("whose").hidden = false;
  (again?.kind === "print" ? $("print") : $("make")).focus();
}

async function order(kind) {
  const { numbers, birthDate, shown, again } = whose;
  const publisher = kind === "print" ? document.querySelector("#publishers input:checked")?.value || publishers[0] : "";
  leave();
  field.focus(); // the next number may be scanned at once. Asking twice is harmless, the second joins the first.
  const looked = Boolean(again?.looked && again.kind === kind && again.publisher === publisher);
  $("problem").textContent = await ask(kind, { numbers, publisher, shown, birthDate, looked });
}

async function ask(kind, { numbers, publisher, shown, birthDate, looked }) { // `looked`: at the publisher, where an earlier print ended unclear
  const several = kind === "download" && numbers.length > 1;
  const query = new URLSearchParams({
    [several ? "accession_numbers" : "accession_number"]: numbers.join(","),
    shown,
    ...(birthDate && { birth_date: birthDate }),
    ...(publisher && { publisher }),
    ...(looked && { confirm_reprint: "true" }),
  });
  const address = `/api/iso/${kind === "print" ? "print" : several ? "download-multiple" : "download"}?${query}`;
  const { body, error } = await call(address, { method: kind === "print" ? "POST" : "GET", headers: { Prefer: "respond-async" } });
  if (error) return advice(kind, error);
  const job = { id: body.job_id, kind, numbers, publisher, state: "waiting", asked: Date.now(), fresh: true };
  if (kind === "print") Object.assign(job, { joined: body.joined, before: body.made_before_minutes });
  for (const other of jobs.filter((other) => other.id === job.id || (other.state === "failed" && same(other, job)))) forget(other);
  jobs.unshift(job);
  save();
  draw();
  follow(job);
  return "";
}

function same(one, other) {
  return one.kind === other.kind && one.publisher === other.publisher && [...one.numbers].sort().join() === [...other.numbers].sort().join();
}

function forget(job) {
  jobs.splice(jobs.indexOf(job), 1);
  shown.get(job.id)?.remove();
  shown.delete(job.id);
}

function ended(job) { return job.state === "done" || job.state === "failed"; }

async function refresh(job) {
  const { body, error } = await call(`/api/iso/jobs/${job.id}`);
  if (body) Object.assign(job, { state: body.state, told: body });
  else if (error.code === "job_not_found") Object.assign(job, { state: "failed", told: { error } });
  else job.lost = true; // the service is away: what was told last stands until it is back
  if (body) job.lost = false;
  draw();
}

async function follow(job) {
  let found = false;
  while (jobs.includes(job)) {
    await refresh(job);
    if (ended(job)) break;
    const studies = job.told?.studies || [];
    if (studies.length && !found) say(`${job.numbers.join(", ")}: ${count(studies.length, "study").replace("studys", "studies")} found.`);
    found = studies.length > 0;
    await new Promise((next) => setTimeout(next, POLL_MS));
  }
  if (!ended(job)) return;
  say(`${job.numbers.join(", ")}: ${sentence(job)}`);
  if (job.state === "done" && job.fresh && job.told.discs.length === 1) shown.get(job.id).querySelector(".discs a").click();
  job.fresh = false;
  save();
}

// Waiting, Working, Ready, Queued (the publisher has everything), Made (it says that the disc is there), Failed.
function label(job) {
  if (job.kind === "print" && job.told?.proves && job.state !== "failed") return job.told.proves === "done" ? "Made" : "Queued";
  return { waiting: "Waiting", running: "Working", done: job.kind === "print" ? "Sent" : "Ready", failed: "Failed" }[job.state];
}

function sentence(job) {
  const told = job.told;
  if (job.lost && !ended(job)) return "The service can't be reached at the moment; this page keeps trying.";
  if (!told) return ended(job) ? "" : "Waiting for its turn.";
  if (job.state === "failed") return advice(job.kind, told.error || {}, told.proves);
  if (job.state === "waiting") return "Waiting for its turn.";
  if (told.proves && job.kind === "print") {
    const images = count(told.written || told.received, "image");
    return told.proves === "done" ? `${told.publisher} has made the disc with ${images}. Collect it there.`
      : job.state === "running" && told.stage !== "ordered" ? `${told.publisher} has everything (${images}): ${told.stage.replace(`${told.publisher}: `, "")}.`
        : `${told.publisher} has everything (${images}) and makes the disc when its turn comes. Collect it there.`;
  }
  if (job.state === "done") {
    if (told.discs.length > 1) return `The images fill ${told.discs.length} discs. Download and burn every one.`;
    return told.degraded.includes("counts_unknown") ? "The disc image is ready." : "The disc image is ready and proven complete.";
  }
  const images = told.expected ? `: ${told.received} of ${count(told.expected, "image")}` : told.received ? `: ${count(told.received, "image")}` : "";
  const stage = told.stage || "working";
  return `${stage[0].toUpperCase()}${stage.slice(1)}${images}`;
}

function remarks(job) {
  const all = without(job.told?.degraded || []);
  if (job.before !== undefined) all.unshift(`The same was printed ${ago(job.before)}: this makes another disc.`);
  if (job.joined) all.unshift("The same disc is being made already: there will be one disc.");
  return all.join(" ");
}

function draw() {
  $("none").hidden = jobs.length > 0;
  for (const [index, job] of jobs.entries()) {
    const entry = shown.get(job.id) || begin(job);
    if ($("jobs").children[index] !== entry) $("jobs").insertBefore(entry, $("jobs").children[index] || null);
    paint(entry, job);
  }
}

function begin(job) {
  const entry = $("job").content.firstElementChild.cloneNode(true);
  const numbers = job.numbers.join(", ");
  put(entry, ".numbers", numbers);
  const time = new Date(job.asked).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  put(entry, ".kind", `${job.kind === "print" ? `to ${job.publisher}` : "disc image"} · ${time}`);
  entry.querySelector("progress").setAttribute("aria-label", `Progress of ${numbers}`);
  entry.querySelector(".again").addEventListener("click", () => {
    const again = { kind: job.kind, publisher: job.publisher, looked: mustLook(job.kind, job.told.error, job.told.proves) };
    field.focus();
    if (wantsBirthDate) begun(job.numbers, again); else look(job.numbers, "", again);
  });
  shown.set(job.id, entry);
  return entry;
}

function put(entry, selector, text) { // only what changed, so that a screen reader and a selection are left alone
  const place = entry.querySelector(selector);
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

function paint(entry, job) {
  const told = job.told || {};
  const failed = job.state === "failed";
  entry.className = `job ${job.state}${told.proves && !failed ? " sent" : ""}${label(job) === "Queued" ? " queued" : ""}`;
  put(entry, ".state", label(job));
  put(entry, ".words", sentence(job));
  put(entry, ".remark", remarks(job));
  const bar = entry.querySelector("progress");
  if (told.expected) bar.value = Math.min(told.received / told.expected, 1); else bar.removeAttribute("value");
  paintStudies(entry, job);
  put(entry, ".again", !failed || !told.error ? "" : mustLook(job.kind, told.error, told.proves) ? "I have looked: print again" : "Ask again");
  const cause = entry.querySelector(".cause");
  cause.hidden = !failed || !told.error;
  if (!cause.hidden) put(cause, "p", [told.error.error, `Code ${told.error.code}, job ${job.id}.`].filter(Boolean).join(" "));
  const discs = job.state === "done" ? told.discs || [] : [];
  const list = entry.querySelector(".discs");
  if (list.children.length !== discs.length) list.replaceChildren(...discs.map(discLink));
}

function discLink(disc) {
  const link = document.createElement("a");
  link.href = disc.href;
  link.download = disc.filename;
  link.textContent = disc.total > 1 ? `Download disc ${disc.part} of ${disc.total} (${size(disc.size)})` : `Download (${size(disc.size)})`;
  const item = document.createElement("li");
  item.append(link);
  return item;
}

function paintStudies(entry, job) {
  const whole = (study) => job.state === "done" || study.received === study.expected;
  const rows = paintRows(entry, job.told?.studies || [], (study) => (study.expected === null ? count(study.received, "image")
    : whole(study) ? count(study.expected, "image") : `${study.received} of ${count(study.expected, "image")}`));
  for (const [row, study] of rows) {
    row.classList.toggle("whole", whole(study));
    row.style.setProperty("--part", study.expected ? `${100 * Math.min(study.received / study.expected, 1)}%` : "0%");
  }
}

function paintRows(entry, studies, images) { // a row for each study; only what changed is written
  const body = entry.querySelector("tbody");
  entry.querySelector(".studies").hidden = studies.length === 0;
  entry.querySelector("table").classList.toggle("one", studies.length === 1 && entry.id !== "whose");
  while (body.rows.length > studies.length) body.deleteRow(-1);
  return studies.map((study, index) => {
    const row = body.rows[index] || addRow(body);
    const texts = [study.accession_number, day(study.study_date), study.modalities.join(", "), study.study_description, images(study)];
    for (const [cell, text] of texts.entries()) if (row.cells[cell].textContent !== text) row.cells[cell].textContent = text;
    return [row, study];
  });
}

function addRow(body) {
  const row = body.insertRow();
  for (const name of ["number", "date", "modalities", "description", "images"]) row.insertCell().className = name;
  return row;
}

// Between commas an empty place is left in: the service refuses it, since it may stand for a study that somebody wanted.
function asked(text) {
  return [...new Set(text.split("\n").filter((line) => line.trim()).flatMap((line) => line.split(",")).map((number) => number.trim()))];
}

const wantsBirthDate = document.documentElement.dataset.birthDate === "yes";
let pending = null; // what is asked again as soon as the birth date is typed

function begun(numbers, again) {
  field.value = numbers.join("\n");
  pending = { numbers: numbers.join(), again };
  $("birth-date").focus();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const numbers = asked(field.value);
  const birthDate = wantsBirthDate ? $("birth-date").value : "";
  field.focus();
  if (!numbers.length) $("problem").textContent = "Type or scan an accession number first.";
  else if (wantsBirthDate && !birthDate) {
    $("problem").textContent = "Type the patient's birth date too: ask for it, don't read it from a list.";
    $("birth-date").focus();
  } else {
    const again = pending?.numbers === numbers.join() ? pending.again : null;
    pending = null;
    field.value = ""; // at once: the next number may be scanned already
    $("birth-date").value = "";
    several.checked = false;
    explain();
    look(numbers, birthDate, again);
  }
});
offerPublishers();
$("make").addEventListener("click", () => order("download"));
$("print")?.addEventListener("click", () => order("print"));
$("back").addEventListener("click", () => { leave(); field.focus(); });

// A scanner ends a number with Enter: that asks. With several on one disc it begins another line, and an empty line asks.
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  const line = field.value.slice(field.value.lastIndexOf("\n", field.selectionStart - 1) + 1, field.selectionStart);
  if (several.checked && line.trim()) return;
  event.preventDefault();
  if (!field.value.trim()) return; // a scanner may send two: the second has nothing to ask
  if (wantsBirthDate && !$("birth-date").value) $("birth-date").focus(); else $("ask").requestSubmit();
});
$("birth-date").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("ask").requestSubmit();
});

// A scanner types wherever the focus is: its letters belong into the field, and its Enter must not press a button that somebody left the focus on.
// Nor does an Enter that is held down say yes to a patient who has just appeared.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && whose) $("back").click();
  if (event.repeat && ["Enter", " "].includes(event.key) && document.activeElement.closest("#whose")) event.preventDefault();
  const typed = event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.altKey && !event.metaKey;
  if (typed && !["numbers", "birth-date"].includes(document.activeElement.id)) field.focus();
});

function explain() {
  $("hint").textContent = several.checked ? "Type or scan each on its own line; Enter on an empty line shows the patient." : "Type or scan it, then press Enter.";
  several.closest("form").querySelector("label").textContent = several.checked ? "Accession numbers" : "Accession number";
}
several.addEventListener("change", () => { explain(); field.focus(); });

function offerPublishers() {
  if (!publishers.length) $("print").remove();
  if (publishers.length < 2) return;
  const chosen = sessionStorage.getItem("publisher");
  for (const name of publishers) {
    const label = document.createElement("label");
    const choice = Object.assign(document.createElement("input"), { type: "radio", name: "publisher", value: name });
    choice.checked = name === (publishers.includes(chosen) ? chosen : publishers[0]);
    choice.addEventListener("change", () => sessionStorage.setItem("publisher", name));
    label.className = "choice";
    label.append(choice, ` ${name}`);
    $("publishers").append(label);
  }
}

async function resume() {
  for (const job of jobs) if (!ended(job)) follow(job);
  for (const job of jobs.filter(ended)) await refresh(job);
}

if (document.documentElement.dataset.signOut) $("sign-out").hidden = false;
$("sign-out").addEventListener("submit", () => sessionStorage.clear()); // the next clerk begins with an empty list
$("born").hidden = !wantsBirthDate;
explain();
draw();
resume();
