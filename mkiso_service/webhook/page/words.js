// What a clerk can do about each error code (docs/errors.md tells more); what isn't here is told in the service's own words,
// as the numbers' faults are, which name the wrong character.
const LATER = "Ask again in a few minutes.";
const TELL_PACS = "Tell the PACS administrator.";
const TELL = "Tell the administrator.";

const ADVICE = {
  study_not_found: "The PACS knows no study with this number. Check the number; if it is right, the images may not have arrived yet.",
  no_dicom_data: "The study is there but holds no images yet. Ask again when the examination has been sent.",
  patient_mismatch: "These numbers don't belong to one patient, so no disc is made. Ask for each patient separately; if it is one, tell the PACS administrator.",
  study_incomplete: `Some images could not be fetched, so no disc is made. ${LATER} If it stays so, tell the PACS administrator.`,
  instance_conflict: `One image exists in two versions, so no disc is made. ${TELL_PACS}`,
  damaged_instance: `An image in the PACS is damaged, so no disc is made. ${TELL_PACS}`,
  counts_unknown: `The PACS doesn't say how many images there are, so nobody could know that the disc is complete. ${TELL}`,
  too_large_for_medium: "The studies don't fit on one disc. Ask for fewer at a time, or tell the administrator.",
  pacs_refused: `The PACS refuses this service. ${TELL_PACS}`,
  pacs_unreachable: `The PACS can't be reached. ${LATER}`,
  pacs_busy: `The PACS is busy. ${LATER}`,
  pacs_silent: `The PACS stopped answering. ${LATER}`,
  receiver_unavailable: `The service can't take in images at the moment. ${LATER}`,
  proof_failed: "The finished image differed from what came from the PACS and was thrown away. Ask again; if it happens twice, tell the administrator.",
  queue_full: "Many discs are being made already. Ask again in a minute.",
  storage_full: `The service has no room for another disc. ${TELL}`,
  orchestrator_unavailable: "The service is starting or disturbed. Ask again in a minute.",
  service_stopping: "The service is being restarted. Ask again in a minute.",
  job_stopped: "The job was stopped before its end. Ask again.",
  job_cancelled: "An operator cancelled this job. Ask again if the disc is still wanted.",
  job_crashed: "The job was cut off. Ask again.",
  job_not_found: "This disc isn't kept any more. Ask again to have it made anew.",
  publisher_unavailable: "The publisher can't be reached. Check that it is on, then ask again.",
  publisher_refused: "The publisher refused the disc. Look at its display for the cause, then ask again.",
  print_uncertain: "The publisher may already have made this disc. Look there first; print again only if it isn't there.",
  foreign_request: `The browser doesn't say that this page asks. ${TELL}`,
  unknown_host: `This service isn't known by the name in the address above. ${TELL}`,
  configuration: `The service isn't set up for this. ${TELL}`,
  unforeseen: "Something went wrong that nobody foresaw. Ask again; if it happens twice, tell the administrator.",
  unreachable: "The service can't be reached. Check the network and ask again.",
};

// A print that broke off may have reached the publisher: whoever asks again without a look there gets two discs.
const LOOK_FIRST = new Set(["print_uncertain", "job_stopped", "job_cancelled", "job_crashed", "unforeseen", "publisher_refused"]);

const WITHOUT = {
  patient_api: "The hospital's patient data couldn't be asked; the disc bears the name that the PACS knows.",
  counts_unknown: "The PACS doesn't say how many images there are: check that none is missing.",
};

export function mustLook(kind, error, proves) { return kind === "print" && (Boolean(proves) || LOOK_FIRST.has(error.code)); }

export function advice(kind, error, proves) {
  const words = ADVICE[error.code] || error.error || "Something went wrong. Ask again, or tell the administrator.";
  return mustLook(kind, error, proves) && error.code !== "print_uncertain" ? `${words} But look at the publisher first: the disc may be there already.` : words;
}

export function without(degraded) { return degraded.map((lack) => WITHOUT[lack] || `Made without ${lack.replaceAll("_", " ")}.`); }

export function count(number, what) { return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`; }

export function ago(minutes) {
  if (minutes < 1) return "less than a minute ago";
  return minutes < 120 ? `${count(minutes, "minute")} ago` : minutes < 2880 ? `${Math.round(minutes / 60)} hours ago` : `${Math.round(minutes / 1440)} days ago`;
}

export function size(bytes) { return bytes < 1e9 ? `${Math.max(1, Math.round(bytes / 1e6))} MB` : `${(bytes / 1e9).toFixed(1)} GB`; }

export function day(date) { return date.length === 8 ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : date; }
