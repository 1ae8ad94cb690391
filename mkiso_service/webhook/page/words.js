// What a clerk can do about each error code (docs/errors.md says more). Other codes show the service's own message,
// such as those of wrong numbers, which name the wrong character.
const LATER = "Ask again in a few minutes.";
const TELL_PACS = "Tell the PACS administrator.";
const TELL = "Tell the administrator.";

const ADVICE = {
  study_not_found: "The PACS knows no study with this number. Check the number; if it is right, the images may not have arrived yet.",
  no_dicom_data: "The study exists but has no images yet. Ask again when the examination has been sent.",
  patient_mismatch: "These numbers don't belong to one patient, so no disc is made. Ask for each patient separately. If it is one patient, tell the PACS administrator.",
  other_patient: "The PACS names another patient by now than the one who was shown, so no disc is made. Look the number up again.",
  wrong_birth_date: "The PACS has another birth date for this number. Check the number and the birth date.",
  study_incomplete: `Some images could not be fetched, so no disc is made. ${LATER} If it happens again, tell the PACS administrator.`,
  instance_conflict: `One image exists in two versions, so no disc is made. ${TELL_PACS}`,
  damaged_instance: `An image in the PACS is damaged, so no disc is made. ${TELL_PACS}`,
  counts_unknown: `The PACS doesn't say how many images there are, so nobody can say that the disc is complete. ${TELL}`,
  answer_cut: `The PACS may not have told of all studies with this number, so no disc is made. ${TELL_PACS}`,
  too_large_for_medium: "The studies don't fit on one disc. Ask for fewer at a time, or tell the administrator.",
  pacs_refused: `The PACS refuses this service. ${TELL_PACS}`,
  pacs_unreachable: `The PACS can't be reached. ${LATER}`,
  pacs_busy: `The PACS is busy. ${LATER}`,
  pacs_silent: `The PACS stopped answering. ${LATER}`,
  receiver_unavailable: `The service can't receive images at the moment. ${LATER}`,
  proof_failed: "The finished disc file differed from what came from the PACS and was deleted. Ask again; if it happens twice, tell the administrator.",
  queue_full: "Many discs are being made already. Ask again in a minute.",
  storage_full: `The service has no room for another disc. ${TELL}`,
  orchestrator_unavailable: "The service is starting, or a part of it isn't available. Ask again in a minute.",
  service_stopping: "The service is being restarted. Ask again in a minute.",
  job_stopped: "The job was stopped before its end. Ask again.",
  job_cancelled: "This was cancelled. Ask again if the disc is still wanted.",
  job_crashed: "The job was interrupted. Ask again.",
  job_not_found: "This disc is no longer kept. Ask again to have it made again.",
  publisher_unavailable: "The disc robot can't be reached. Check that it is on, then ask again.",
  publisher_refused: "The disc robot refused the disc. Look at its display for the cause, then ask again.",
  print_uncertain: "The disc robot may already have made this disc. Look there first; have it made again only if it isn't there.",
  foreign_request: `The browser doesn't say that the request comes from this page. ${TELL}`,
  unknown_host: `The service doesn't know the host name in the address bar. ${TELL}`,
  configuration: `The service isn't set up for this. ${TELL}`,
  unforeseen: "An unexpected error happened. Ask again; if it happens twice, tell the administrator.",
  unreachable: "The service can't be reached. Check the network and ask again.",
};

// A print that broke off may have reached the publisher: asking again without looking there could make two discs.
const LOOK_FIRST = new Set(["print_uncertain", "job_stopped", "job_cancelled", "job_crashed", "unforeseen", "publisher_refused"]);

const WITHOUT = {
  patient_api: "The hospital's patient data wasn't available; the disc has the name from the PACS.",
  counts_unknown: "The PACS doesn't say how many images there are: check that none is missing.",
};

// What a job does, by the name of its stage in the service.
const STAGES = {
  waiting: "Waiting for its turn", starting: "Starting", found: "Studies found", retrieving: "Fetching images", complete: "All images are here",
  "making pictures": "Making pictures for viewing", "laying out": "Putting the disc together", mastering: "Writing the disc file",
  "reading back": "Checking the disc file", ordering: "Sending to the disc robot",
};

export function stage(told) {
  const [name] = told.stage.split(/ from | \(/);
  if (name === "ordering") return `Sending to ${told.publisher}`;
  const images = name === "retrieving" && (told.expected ? `: ${told.received} of ${counted(told.expected, told.studies || [])}` : told.received ? `: ${counted(told.received, told.studies || [])}` : "");
  return (STAGES[name] || `${told.stage[0].toUpperCase()}${told.stage.slice(1)}`) + (images || "");
}

export const SEXES = { F: "female", M: "male", O: "other" };

export function mustLook(kind, error, proves) { return kind === "print" && (Boolean(proves) || LOOK_FIRST.has(error.code)); }

export function advice(kind, error, proves) {
  const words = ADVICE[error.code] || error.error || "Something went wrong. Ask again, or tell the administrator.";
  return mustLook(kind, error, proves) && error.code !== "print_uncertain" ? `${words} But look at the disc robot first: the disc may be there already.` : words;
}

export function without(degraded) { return degraded.map((lack) => WITHOUT[lack] || `Made without ${lack.replaceAll("_", " ")}.`); }

export function count(number, what) { return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`; }

const REPORTS = ["SR", "DOC"]; // modalities (PS3.3 C.7.3.1.1.1); as mkiso_service/counting.py has it

export function counted(number, studies) { // 412 images, 1 report, 413 images and reports
  const modalities = studies.flatMap((study) => study.modalities);
  if (!modalities.some((modality) => REPORTS.includes(modality))) return count(number, "image");
  if (modalities.every((modality) => REPORTS.includes(modality))) return count(number, "report");
  return `${number.toLocaleString("en")} images and reports`;
}

export function ago(minutes) {
  if (minutes < 1) return "less than a minute ago";
  return minutes < 120 ? `${count(minutes, "minute")} ago` : minutes < 2880 ? `${Math.round(minutes / 60)} hours ago` : `${Math.round(minutes / 1440)} days ago`;
}

export function size(bytes) {
  for (const [unit, each] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= each) return `${(bytes / each).toFixed(bytes < 10 * each ? 1 : 0)} ${unit}`;
  }
  return `${bytes} bytes`;
}

export function day(date) { return date.length === 8 ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : date; }
