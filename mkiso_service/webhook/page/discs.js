// The discs of everybody at this site: how each stands, what came of it, again and cancel. Nothing of them is kept in the browser but the ids of those
// that this session has asked for, and the claims by which their passwords are told: a disc's file name and its patient are asked for again each time.
import { advice, ago, clock, counted, day, gettext, isProved, mustLook, ngettext, part, size, stage, without } from "/page/words.js";

const BUSY_MS = 1000;
const IDLE_MS = 10000;
const HEALTH_MS = 15000;
const KEPT = 50;
const $ = (id) => document.getElementById(id);
const shown = new Map(); // the entry on the page of each job, by its id
const seen = new Set(); // those that this page has seen at work
const mine = new Map(JSON.parse(sessionStorage.getItem("mine") || "[]"));
const robots = {}; // how each disc robot is: {ok, detail}
let listed = [];
let more = false; // whether there are discs that the service hasn't listed
let search = "";
let lost = false;
let again = () => {};
let unsent = () => ""; // the numbers that somebody would have to type again
let timer = 0;

// Aloud for who doesn't see the page; `isSeen` for everybody, until something else is said.
export function say(words, isSeen = false) {
  $("announce").textContent = words;
  $("announce").className = isSeen && words ? "told" : "unseen";
}

export async function call(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { cache: "no-store", ...options });
  } catch {
    return { error: { code: "unreachable" } };
  }
  const body = await answer.json().catch(() => null);
  if (answer.status === 401) {
    sessionStorage.setItem("unsent", unsent());
    location.replace("/?ended"); // the sign-in comes, and says why
  }
  if (answer.ok && body) return { body };
  return { error: body || { code: answer.ok ? "unreachable" : "error" } }; // an answer that was cut off is none
}

export function robot(name) { return robots[name]; }

// A job that this session has asked for: its disc is downloaded as soon as it is there.
export function follow(accepted) {
  mine.delete(accepted.job_id);
  mine.set(accepted.job_id, { fresh: true, joined: accepted.joined, before: accepted.made_before_minutes, claim: accepted.claim });
  keep();
  search = $("search").value = "";
  refresh();
}

// Whether a job is on its way that this session has asked for: what becomes of it is said aloud.
export function isWaiting() { return [...mine.values()].some((own) => own.fresh); }

function keep() { sessionStorage.setItem("mine", JSON.stringify([...mine].slice(-KEPT))); }

export async function begin(askAgain, numbersNow) {
  [again, unsent] = [askAgain, numbersNow];
  $("password").addEventListener("cancel", (event) => event.preventDefault()); // Escape would lose it
  $("password").addEventListener("close", () => { $("password").querySelector("strong").textContent = ""; });
  $("find").addEventListener("submit", (event) => {
    event.preventDefault();
    search = $("search").value.trim();
    refresh();
  });
  $("search").addEventListener("input", () => { if (!$("search").value && search) { search = ""; refresh(); } });
  refresh();
}

export async function watchRobots(names, changed) {
  const { body } = await call("/api/health");
  for (const name of names) robots[name] = body?.dependencies[`publisher:${name}`];
  changed();
  draw();
  setTimeout(() => watchRobots(names, changed), HEALTH_MS);
}

async function refresh() {
  clearTimeout(timer);
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const wanted = search;
  const query = new URLSearchParams(wanted ? { search: wanted } : { since: midnight.toISOString() });
  const { body, error } = await call(`/api/iso/jobs?${query}`);
  if (wanted === search) {
    lost = Boolean(error);
    if (body) {
      for (const entry of body.jobs) await tellOf(entry);
      [listed, more] = [body.jobs, body.more];
    } else if (error.code === "invalid_request") [listed, more] = [[], false];
    draw();
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, lost || listed.some(({ job }) => !ended(job)) || isWaiting() ? BUSY_MS : IDLE_MS);
}

// Say aloud what has become of this session's own discs, and take those that are ready.
async function tellOf(entry) {
  const { job } = entry;
  if (!ended(job)) seen.add(job.job_id);
  const own = mine.get(job.job_id);
  if (!own?.fresh) return;
  if (job.studies.length && !own.found) {
    own.found = true;
    const found = ngettext("%(number)s study found.", "%(number)s studies found.", job.studies.length);
    say(of(numbers(job), found));
  }
  if (!ended(job)) return;
  own.fresh = false;
  keep();
  say(of(numbers(job), sentence(job)));
  if (job.state === "done" && job.discs.length === 1) download(job.discs[0]);
}

function download(disc) {
  const link = Object.assign(document.createElement("a"), { href: disc.href, download: disc.filename });
  document.body.append(link);
  link.click();
  link.remove();
}

function of(first, second) { return first && second ? gettext("%(first)s: %(second)s", { first, second }) : first || second; }

function isCancelled(job) { return job.state === "failed" && job.error?.code === "job_cancelled"; }

function ended(job) { return job.state === "done" || job.state === "failed"; }

function numbers(job) {
  const found = [...new Set(job.studies.filter((study) => !study.is_prior).map((study) => study.accession_number).filter(Boolean))];
  return (job.accession_numbers.length ? job.accession_numbers : found).join(", ") || gettext("chosen studies");
}

function same(one, other) {
  const chosen = ({ selection }) => [selection.studies, selection.series, selection.priors].join(";");
  return one.kind === other.kind && one.deidentified === other.deidentified && chosen(one) === chosen(other) && one.publisher === other.publisher && [...one.accession_numbers].sort().join() === [...other.accession_numbers].sort().join();
}

// Waiting, Working, Ready, Ordered (the robot has everything), Made (it says that the disc is there, or the file isn't kept any more), Cancelled, Failed.
function label(job) {
  if (job.kind === "print" && job.proves && job.state !== "failed") return job.proves === "done" ? gettext("Made") : gettext("Ordered");
  if (job.state === "running") return gettext("Working %(part)s", { part: `${Math.round(100 * job.progress)} %` });
  if (job.state === "failed") return isCancelled(job) ? gettext("Cancelled") : gettext("Failed");
  if (job.state === "waiting") return gettext("Waiting");
  return job.discs.length ? gettext("Ready") : gettext("Made");
}

function sentence(job) {
  if (job.state === "failed") return advice(job.kind, job.error || {}, job.proves);
  if (job.state === "waiting") return gettext("Waiting for its turn.");
  if (job.proves && job.kind === "print") {
    const { publisher } = job;
    const images = counted(job.written || job.received, job.studies);
    if (job.proves === "done") return gettext("%(publisher)s has made the disc with %(images)s. Collect it there.", { publisher, images });
    if (troubleOf(job)) return gettext("%(publisher)s has the order (%(images)s), but something is wrong there. Check that it is on; if it is, tell the administrator.", { publisher, images });
    const state = saidOf(job).split(/[ ,]/)[0];
    if (state === "running") return gettext("%(publisher)s makes the disc now (%(images)s). Collect it there.", { publisher, images });
    if (state === "paused") return gettext("%(publisher)s has the order (%(images)s) and stands still. Look at its display.", { publisher, images });
    return gettext("%(publisher)s has the order (%(images)s) and makes the disc when its turn comes. Collect it there.", { publisher, images });
  }
  if (job.state === "done") {
    if (!job.discs.length) return gettext("The disc file was made, and isn't kept any more.");
    if (job.discs.length > 1) return ngettext("The images fill %(number)s disc.", "The images fill %(number)s discs. Download and burn every one.", job.discs.length);
    return isProved(job.degraded) ? gettext("The disc file is ready, and no image is missing.") : gettext("The disc file is ready.");
  }
  return stage(job);
}

// What is wrong with the robot that has this job's order, in English; empty where nothing is.
function troubleOf(job) {
  const isThere = job.kind === "print" && job.proves === "queued" && job.state !== "failed";
  const state = isThere && robot(job.publisher);
  return state && !state.ok ? state.detail : "";
}

// What the robot says of an order that it has, in English: its state, and its own words. Empty where it says nothing.
function saidOf(job) {
  const [name, says] = [`${job.publisher}: `, job.stage];
  return job.state === "running" && job.proves && says.startsWith(name) ? says.slice(name.length) : "";
}

// An encrypted disc whose password this browser can't show: only the browser that asked has the button for it.
export function isEncrypted(format) { return /-(encrypted|cms)$/.test(format); }

function isLocked(job) { return job.state === "done" && isEncrypted(job.format) && !mine.get(job.job_id)?.claim; }

function remarks(job) {
  const all = without(job.degraded);
  if (job.deidentified) all.unshift(gettext("De-identified copy. Not a patient's disc."));
  if (job.is_part) all.unshift(gettext("Not everything is on this disc: only what was chosen."));
  const own = mine.get(job.job_id);
  if (job.kind === "print" && own?.before !== undefined) all.unshift(gettext("The same was ordered %(when)s: this makes another disc.", { when: ago(own.before) }));
  if (job.kind === "print" && own?.joined) all.unshift(gettext("The same disc is being made already: there will be one disc."));
  if (isLocked(job)) all.push(gettext("The disc is encrypted, and its password is told once, to whoever asked for it. Without the password, make the file again."));
  return all.join(" ");
}

function draw() {
  // What failed and was asked for again since is history: a search shows it.
  const drawn = listed.filter(({ job }, index) => search || job.state !== "failed" || !listed.slice(0, index).some((newer) => same(newer.job, job)));
  $("jobs-title").textContent = search ? gettext("Discs found") : gettext("Today's discs");
  $("none").textContent = lost ? gettext("The service can't be reached at the moment; this page keeps trying.") : drawn.length ? ""
    : search ? gettext("Nothing that is still kept was made for this number, patient ID or name.") : gettext("Nothing has been asked for yet.");
  $("none").hidden = !$("none").textContent;
  $("rest").hidden = !more;
  const wanted = new Set(drawn.map(({ job }) => job.job_id));
  for (const [id, entry] of shown) {
    if (wanted.has(id)) continue;
    entry.remove();
    shown.delete(id);
  }
  for (const [index, entry] of drawn.entries()) {
    const item = shown.get(entry.job.job_id) || add(entry.job.job_id);
    if ($("jobs").children[index] !== item) $("jobs").insertBefore(item, $("jobs").children[index] || null);
    paint(item, entry);
  }
}

function add(id) {
  const item = $("job").content.firstElementChild.cloneNode(true);
  const current = () => listed.find(({ job }) => job.job_id === id).job;
  item.querySelector(".again").addEventListener("click", () => {
    const job = current();
    again({ numbers: job.accession_numbers, ...job.selection }, { ...job, looked: job.state === "failed" && mustLook(job.kind, job.error, job.proves) });
  });
  item.querySelector(".cancel").addEventListener("click", async () => {
    const job = current();
    if (!await sure(gettext("Cancel the disc of %(numbers)s?", { numbers: numbers(job) }))) return;
    const { body, error } = await call(`/api/iso/jobs/${id}/cancel`, { method: "POST" });
    const isLate = !error && ended(body) && !isCancelled(body); // it had ended before
    say(error ? advice("cancel", error) : isLate ? of(numbers(body), sentence(body)) : gettext("%(numbers)s: cancelled.", { numbers: numbers(job) }), Boolean(error) || isLate);
    await refresh();
    const at = document.activeElement; // somebody may be at the next number by now
    if (!at || at === document.body || !at.getClientRects().length) stay(id);
  });
  const locked = item.querySelector(".locked form");
  locked.action = `/api/iso/jobs/${id}/letter.pdf`;
  locked.addEventListener("submit", () => setTimeout(() => forget(id))); // when the form has been sent
  item.querySelector(".tell").addEventListener("click", () => tellPassword(id));
  shown.set(id, item);
  return item;
}

// A password is told once, to whoever has the claim that came with the job.
async function tellPassword(id) {
  const { body, error } = await call(`/api/iso/jobs/${id}/password`, { method: "POST", body: new URLSearchParams({ claim: mine.get(id).claim }) });
  if (error && error.code !== "password_gone") {
    say(advice("password", error), true);
    return;
  }
  const { job } = listed.find((entry) => entry.job.job_id === id);
  $("password-title").textContent = of(numbers(job), gettext("Password of the disc"));
  forget(id);
  $("password").querySelector("strong").textContent = error ? advice("password", error) : body.password;
  $("password").showModal();
}

function forget(id) {
  delete mine.get(id).claim;
  keep();
  draw();
  stay(id);
}

// The button that somebody pressed is gone: the keyboard goes on from the same disc.
function stay(id) { (shown.get(id)?.querySelector(".discs a, .again:not([hidden])") || $("numbers")).focus(); }

// A question that is answered by Yes or No; No has the focus.
function sure(words) {
  $("sure-words").textContent = words;
  $("sure").returnValue = "no";
  $("sure").showModal();
  return new Promise((answered) => $("sure").addEventListener("close", () => answered($("sure").returnValue === "yes"), { once: true }));
}

export function put(entry, selector, text) { // only what changed, so that a screen reader and a selection are left alone
  const place = entry.querySelector(selector);
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
  return place;
}

function paint(item, entry) {
  const { job } = entry;
  const held = item.contains(document.activeElement);
  const failed = job.state === "failed";
  const isOrdered = label(job) === gettext("Ordered");
  item.className = `job ${isCancelled(job) ? "cancelled" : job.state}${isOrdered ? " queued" : ""}${seen.has(job.job_id) ? " seen" : ""}`;
  put(item, ".numbers", numbers(job));
  const born = entry.patient_birth_date && gettext("born %(date)s", { date: day(entry.patient_birth_date) });
  put(item, ".patient", [entry.patient_name, born].filter(Boolean).join(", "));
  put(item, ".state", label(job));
  put(item, ".kind", [job.kind === "print" ? gettext("by %(publisher)s", { publisher: job.publisher }) : gettext("disc file"), moments(entry), askers(entry)].filter(Boolean).join(" · "));
  put(item, ".words", sentence(job));
  put(item, ".remark", remarks(job));
  const bar = item.querySelector("progress");
  bar.value = job.progress;
  bar.setAttribute("aria-label", gettext("Progress of %(numbers)s", { numbers: numbers(job) }));
  paintStudies(item, job);
  const isSent = job.degraded.includes("completeness_not_proven"); // to an inbox that asks no PACS: it has to be sent again
  const mayAgain = ended(job) && !isSent && !job.deidentified && (!failed || job.error); // this page asks for no copies
  const looked = failed && job.error && mustLook(job.kind, job.error, job.proves);
  const what = !mayAgain ? "" : looked ? gettext("I have looked: have it made again") : failed ? gettext("Ask again")
    : job.kind === "print" ? gettext("Have another disc made") : gettext("Make the file again");
  name(put(item, ".again", what), of(what, numbers(job)));
  const mayCancel = !ended(job) && entry.may_cancel;
  name(put(item, ".cancel", mayCancel ? gettext("Cancel") : ""), gettext("Cancel the disc of %(numbers)s", { numbers: numbers(job) }));
  const cause = item.querySelector(".cause");
  const error = failed && job.error;
  const said = put(cause, ".said", error ? error.error || "" : [troubleOf(job), saidOf(job)].filter(Boolean).join(" "));
  put(cause, ".code", error ? gettext("Code %(code)s, job %(job)s.", { code: error.code, job: job.job_id }) : "");
  cause.hidden = !error && said.hidden;
  const discs = job.state === "done" ? job.discs : [];
  const list = item.querySelector(".discs");
  if (list.children.length !== discs.length) list.replaceChildren(...discs.map(discLink));
  const claim = job.state === "done" && mine.get(job.job_id)?.claim;
  item.querySelector(".locked").hidden = !claim;
  item.querySelector(".locked input").value = claim || "";
  const letter = item.querySelector(".letter");
  const isDisc = job.kind === "print" || job.format === "iso";
  const papers = job.deidentified ? [] : job.state === "done" || (job.proves && !failed) ? [["a4", gettext("Letter for the patient")], ...(isDisc ? [["insert", gettext("Insert for the case")]] : [])] : [];
  if (letter.children.length !== papers.length) letter.replaceChildren(...papers.map(([paper, words]) => letterLink(job, paper, words)));
  const at = document.activeElement;
  if (held && !(item.contains(at) && at.getClientRects().length)) stay(job.job_id); // the button with the focus is gone
}

function name(button, words) { button.setAttribute("aria-label", words); }

function moments({ begun, asked }) { // of a disc that answered later questions too: when it was asked for first and last
  const first = clock(begun);
  const newest = Math.max(...[begun, ...asked.map(({ time }) => time)].map((time) => new Date(time).getTime()).filter(Number.isFinite));
  const last = clock(newest);
  return last === first ? first : gettext("%(first)s, again %(last)s", { first, last });
}

function askers({ job, asked }) {
  if (!asked.length) return gettext("started by an operator");
  const sent = asked.filter((each) => each.by === "inbox");
  if (sent.length) return gettext("sent by %(who)s to %(inbox)s", { who: sent.map((each) => each.who).join(", "), inbox: sent[0].name });
  const who = [...new Set(asked.map((each) => each.name || (each.by === "program" ? gettext("a program at %(address)s", { address: each.who }) : each.who)))].join(", ");
  return mine.has(job.job_id) ? gettext("asked for by %(who)s (this page)", { who }) : gettext("asked for by %(who)s", { who });
}

function discLink(disc) {
  const link = document.createElement("a");
  link.href = disc.href;
  link.download = disc.filename;
  link.textContent = gettext("Download %(name)s (%(size)s)", { name: disc.filename, size: size(disc.size) });
  const item = document.createElement("li");
  item.append(link);
  return item;
}

function letterLink(job, paper, words) {
  const link = Object.assign(document.createElement("a"), { href: `/api/iso/jobs/${job.job_id}/letter.pdf?paper=${paper}`, target: "_blank", textContent: words });
  link.setAttribute("aria-label", of(words, numbers(job)));
  return link;
}

function paintStudies(item, job) {
  const whole = (study) => job.state === "done" || study.received === study.expected;
  const rows = paintRows(item, job.studies, (study) => (study.expected === null ? counted(study.received, [study])
    : whole(study) ? counted(study.expected, [study]) : part(study.received, counted(study.expected, [study]))));
  for (const [row, study] of rows) {
    row.classList.toggle("whole", whole(study));
    row.style.setProperty("--part", study.expected ? `${100 * Math.min(study.received / study.expected, 1)}%` : "0%");
  }
}

export function paintRows(entry, studies, images) { // a row for each study; only what changed is written
  const body = entry.querySelector("tbody");
  entry.querySelector(".studies").hidden = studies.length === 0;
  entry.querySelector("table").classList.toggle("one", studies.length === 1 && entry.id !== "whose");
  while (body.rows.length > studies.length) body.deleteRow(-1);
  return studies.map((study, index) => {
    const row = body.rows[index] || addRow(body);
    const description = of(study.is_prior ? gettext("Earlier examination") : "", study.study_description);
    const texts = [study.accession_number, day(study.study_date), study.modalities.join(", "), description, images(study)];
    for (const [cell, text] of texts.entries()) if (row.cells[cell].textContent !== text) row.cells[cell].textContent = text;
    return [row, study];
  });
}

function addRow(body) {
  const row = body.insertRow();
  for (const name of ["number", "date", "modalities", "description", "images"]) row.insertCell().className = name;
  return row;
}
