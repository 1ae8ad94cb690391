"use strict";
// The counter page: asks for a disc, follows the job, offers what came of it. The jobs of this browser session are kept in sessionStorage.
const POLL_MS = 1000;
const $ = (id) => document.getElementById(id);
const field = $("numbers");
const jobs = JSON.parse(sessionStorage.getItem("jobs") || "[]");
const shown = new Map();

const PLAIN = { // what a clerk can do about it; whatever isn't here is told in the service's own words
  study_not_found: "The PACS knows no study with this number. Check the number; if it is right, the images may not have arrived yet.",
  no_dicom_data: "The study is there but holds no images yet. Ask again when the examination has been sent.",
  patient_mismatch: "These numbers belong to more than one patient, so no disc is made. Ask for each patient separately.",
  study_incomplete: "Some images could not be fetched, so no disc is made. Try again in a few minutes; if it stays so, tell the PACS administrator.",
  pacs_unreachable: "The PACS can't be reached. Try again in a few minutes.",
  pacs_busy: "The PACS is busy. Try again in a few minutes.",
  pacs_silent: "The PACS stopped answering. Try again in a few minutes.",
  queue_full: "Many discs are being made already. Try again in a minute.",
  storage_full: "The service has no room for another disc. Tell the administrator.",
  orchestrator_unavailable: "The service is starting or disturbed. Try again in a minute.",
  print_uncertain: "The publisher may already have made this disc. Look there first, then tell the administrator.",
  publisher_unavailable: "The publisher can't be reached, nothing was sent. Check that it is on, then try again.",
  job_cancelled: "An operator cancelled this job. Nothing was sent.",
  job_crashed: "The job was cut off. Nothing was sent; try again.",
  job_not_found: "This job is forgotten by now. Ask for the disc anew.",
};

function words(error) { return PLAIN[error.code] || error.error || "Something went wrong. Try again, or tell the administrator."; }
function save() { sessionStorage.setItem("jobs", JSON.stringify(jobs.slice(0, 30))); }
function size(bytes) { return bytes < 1e9 ? `${Math.max(1, Math.round(bytes / 1e6))} MB` : `${(bytes / 1e9).toFixed(1)} GB`; }

async function call(address, headers) {
  let answer;
  try {
    answer = await fetch(address, { headers, cache: "no-store" });
  } catch {
    return { error: { code: "unreachable", error: "The service can't be reached. Check the network and try again." } };
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) location.reload(); // the session has ended: the sign-in comes
  return answer.ok ? { body } : { error: body, status: answer.status };
}

async function ask(kind, numbers) {
  const list = numbers.map(encodeURIComponent).join(",");
  const address = kind === "print" ? `/api/iso/print?accession_number=${list}`
    : numbers.length === 1 ? `/api/iso/download?accession_number=${list}` : `/api/iso/download-multiple?accession_numbers=${list}`;
  const { body, error } = await call(address, { Prefer: "respond-async" });
  if (error) return words(error);
  const known = jobs.findIndex((job) => job.id === body.job_id);
  if (known >= 0) jobs.splice(known, 1);
  jobs.unshift({ id: body.job_id, kind, numbers, state: "waiting", fresh: true, before: kind === "print" ? body.made_before_minutes : undefined });
  save();
  draw();
  follow(jobs[0]);
  return "";
}

async function follow(job) {
  for (;;) {
    const { body, error, status } = await call(`/api/iso/jobs/${job.id}`);
    if (body) Object.assign(job, { state: body.state, told: body });
    else if (status === 404) Object.assign(job, { state: "failed", told: { error } });
    draw();
    if (job.state === "done" || job.state === "failed") break;
    await new Promise((next) => setTimeout(next, POLL_MS));
  }
  save();
  $("announce").textContent = `${job.numbers.join(", ")}: ${sentence(job)}`;
  if (job.state === "done" && job.fresh && job.told.discs.length === 1) shown.get(job.id).querySelector("a").click();
  job.fresh = false;
  save();
}

function sentence(job) {
  const told = job.told || {};
  if (job.state === "failed") return words(told.error || {});
  if (job.state === "done") {
    if (job.kind !== "print") return told.discs.length > 1 ? `The images fill ${told.discs.length} discs. Download and burn every one.` : "The disc image is ready and proven complete.";
    const end = told.proves === "done" ? "The disc is made; collect it there." : "Collect the disc there.";
    return `Sent to ${told.publisher}: ${told.written || told.received} images. ${end}`;
  }
  if (job.state === "waiting") return "Waiting for its turn.";
  const count = told.expected ? `: ${told.received} of ${told.expected} images` : told.received ? `: ${told.received} images` : "";
  const stage = told.stage || "working";
  return `${stage[0].toUpperCase()}${stage.slice(1)}${count}`;
}

function draw() {
  $("none").hidden = jobs.length > 0;
  for (const [index, job] of jobs.entries()) {
    let entry = shown.get(job.id);
    if (!entry) {
      entry = $("job").content.firstElementChild.cloneNode(true);
      entry.querySelector(".again").addEventListener("click", () => ask(job.kind, job.numbers).then((problem) => { $("problem").textContent = problem; }));
      shown.set(job.id, entry);
    }
    if ($("jobs").children[index] !== entry) $("jobs").insertBefore(entry, $("jobs").children[index] || null);
    paint(entry, job);
  }
}

function paint(entry, job) {
  const told = job.told || {};
  entry.className = `job ${job.state}`;
  entry.querySelector(".numbers").textContent = job.numbers.join(", ");
  entry.querySelector(".kind").textContent = job.kind === "print" ? "to the publisher" : "disc image";
  entry.querySelector(".state").textContent = { waiting: "Waiting", running: "Working", done: job.kind === "print" ? "Sent" : "Ready", failed: "Failed" }[job.state];
  const text = sentence(job);
  if (entry.querySelector(".words").textContent !== text) entry.querySelector(".words").textContent = text;
  const bar = entry.querySelector("progress");
  bar.setAttribute("aria-label", `Progress of ${job.numbers.join(", ")}`);
  if (told.expected) bar.value = Math.min(told.received / told.expected, 1); else bar.removeAttribute("value");
  const remark = entry.querySelector(".remark");
  const remarks = [];
  if (job.before !== undefined) remarks.push(`The same disc was already sent ${job.before} minutes ago: this makes another.`);
  if (told.degraded && told.degraded.length) remarks.push(`Done without: ${told.degraded.join(", ").replaceAll("_", " ")}.`);
  remark.hidden = remarks.length === 0;
  remark.textContent = remarks.join(" ");
  entry.querySelector(".again").hidden = job.state !== "failed";
  const discs = entry.querySelector(".discs");
  const wanted = job.state === "done" ? told.discs || [] : [];
  if (discs.children.length !== wanted.length) {
    discs.replaceChildren(...wanted.map((disc) => {
      const link = document.createElement("a");
      link.href = disc.href;
      link.download = disc.filename;
      link.textContent = disc.total > 1 ? `Download disc ${disc.part} of ${disc.total} (${size(disc.size)})` : `Download (${size(disc.size)})`;
      const item = document.createElement("li");
      item.append(link);
      return item;
    }));
  }
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const numbers = [...new Set(field.value.split(/[\n,]+/).map((text) => text.trim()).filter(Boolean))];
  $("problem").textContent = numbers.length ? "" : "Type or scan an accession number first.";
  if (numbers.length) {
    const kind = event.submitter ? event.submitter.value : "download";
    field.value = ""; // at once: the next number may be scanned already. Asking twice is harmless, the second joins the first.
    const problem = await ask(kind, numbers);
    if (problem) {
      $("problem").textContent = problem;
      if (!field.value) field.value = numbers.join(", ");
    }
  }
  field.focus();
});

// A scanner ends a number with Enter: that asks. Shift+Enter begins another line.
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit($("ask").querySelector("button"));
  }
});

if (document.documentElement.dataset.signOut) $("sign-out").hidden = false;
draw();
for (const job of jobs) if (job.state === "waiting" || job.state === "running") follow(job);
