// The words of the page in the browser's language, and what a clerk can do about each error code (docs/errors.md says more). Other codes show the
// service's own message, such as those of wrong numbers, which name the wrong character.
const told = JSON.parse(document.documentElement.dataset.told);
export const language = document.documentElement.lang;
const plurals = new Intl.PluralRules(language);

function filled(message, values) { return message.replace(/%\((\w+)\)s/g, (_, name) => values[name]); }

// A message in the language of the page, with the values that it names.
export function gettext(message, values = {}) { return filled(told.words[message] || message, values); }

// The form that fits a number, which stands in it as %(number)s.
export function ngettext(singular, plural, number, values = {}) {
  const forms = told.words[singular] || { one: singular, other: plural };
  return filled(forms[plurals.select(number)] || forms.other, { number: number.toLocaleString(language), ...values });
}

function join(...sentences) { return sentences.join(" "); }

const LATER = gettext("Ask again in a few minutes.");
const TELL_PACS = gettext("Tell the PACS administrator.");
const TELL = gettext("Tell the administrator.");

const ADVICE = {
  study_not_found: gettext("The PACS knows no study with this number. Check the number; if it is right, the images may not have arrived yet."),
  selection_not_found: gettext("A chosen series or examination isn't in the PACS any more. Look the number up again, and choose again."),
  selection_not_told: gettext("This disc robot can't write on a disc that it isn't the whole examination. Make the disc file, or have the whole examination made."),
  no_dicom_data: gettext("The study exists but has no images yet. Ask again when the examination has been sent."),
  patient_mismatch: gettext("These numbers don't belong to one patient, so no disc is made. Ask for each patient separately. If it is one patient, tell the PACS administrator."),
  other_patient: gettext("The PACS names another patient by now than the one who was shown, so no disc is made. Look the number up again."),
  wrong_birth_date: gettext("The PACS has another birth date for this number. Check the number and the birth date."),
  study_incomplete: join(gettext("Some images could not be fetched, so no disc is made."), LATER, gettext("If it happens again, tell the PACS administrator.")),
  not_archived: gettext("The PACS doesn't have all images that were sent, so no disc is made. Send the study to the PACS, then here again."),
  study_grown: gettext("More images came after the disc was made, and that disc lacks them. Ask for a new disc here."),
  instance_conflict: join(gettext("One image exists in two versions, so no disc is made."), TELL_PACS),
  damaged_instance: join(gettext("An image in the PACS is damaged, so no disc is made."), TELL_PACS),
  counts_unknown: join(gettext("The PACS doesn't say how many images there are, so nobody can say that the disc is complete."), TELL),
  answer_cut: join(gettext("The PACS may not have told of all studies with this number, so no disc is made."), TELL_PACS),
  too_large_for_medium: gettext("The studies don't fit on one disc. Ask for fewer at a time, or tell the administrator."),
  pacs_refused: join(gettext("The PACS refuses this service."), TELL_PACS),
  pacs_unreachable: join(gettext("The PACS can't be reached."), LATER),
  pacs_busy: join(gettext("The PACS is busy."), LATER),
  pacs_silent: join(gettext("The PACS stopped answering."), LATER),
  not_asked_everywhere: join(gettext("No PACS that answers has this number, and another one, which may have it, can't be asked."), LATER),
  receiver_unavailable: join(gettext("The service can't receive images at the moment."), LATER),
  proof_failed: gettext("The finished disc file differed from what came from the PACS and was deleted. Ask again; if it happens twice, tell the administrator."),
  queue_full: gettext("Many discs are being made already. Ask again in a minute."),
  storage_full: join(gettext("The service has no room for another disc."), TELL),
  orchestrator_unavailable: gettext("The service is starting, or a part of it isn't available. Ask again in a minute."),
  service_stopping: gettext("The service is being restarted. Ask again in a minute."),
  job_stopped: gettext("The job was stopped before its end. Ask again."),
  job_cancelled: gettext("This was cancelled. Ask again if the disc is still wanted."),
  job_crashed: gettext("The job was interrupted. Ask again."),
  job_not_found: gettext("This disc is no longer kept. Ask again to have it made again."),
  publisher_unavailable: gettext("The disc robot can't be reached. Check that it is on, then ask again."),
  publisher_refused: gettext("The disc robot refused the disc. Look at its display for the cause, then ask again."),
  print_uncertain: gettext("The disc robot may already have made this disc. Look there first; have it made again only if it isn't there."),
  foreign_request: join(gettext("The browser doesn't say that the request comes from this page."), TELL),
  unknown_host: join(gettext("The service doesn't know the host name in the address bar."), TELL),
  search_closed: gettext("Nobody is searched for here without a key. Ask the administrator for one."),
  not_allowed: gettext("Your sign-in doesn't allow this. Ask the administrator."),
  configuration: join(gettext("The service isn't set up for this."), TELL),
  unforeseen: gettext("An unexpected error happened. Ask again; if it happens twice, tell the administrator."),
  encryption_required: gettext("This site hands out encrypted files only."),
  password_gone: gettext("The password was told already, and is kept nowhere. Make the file again if it is lost."),
  wrong_claim: gettext("The password is told only on the page that asked for the disc. Make the file again if it is lost."),
  unreachable: gettext("The service can't be reached. Check the network and ask again."),
};

// A print that broke off may have reached the publisher: asking again without looking there could make two discs.
const LOOK_FIRST = new Set(["print_uncertain", "job_stopped", "job_cancelled", "job_crashed", "unforeseen", "publisher_refused"]);

const WITHOUT = {
  patient_api: gettext("The hospital's patient data wasn't available; the disc has the name from the PACS."),
  counts_unknown: gettext("The PACS doesn't say how many images there are: check that none is missing."),
  completeness_not_proven: gettext("No PACS was asked how many images there are: check that none is missing."),
  label_letters: gettext("The disc's label shows something in other letters, since the robot doesn't have those."),
};

const OF_SOURCE = { // followed by a colon and the source's name
  source_down: (source) => gettext("The PACS %(source)s couldn't be asked: it may have more images.", { source }),
  sources_differ: (source) => gettext("The PACS %(source)s has other images or other data of a study; the disc has what the most complete PACS has.", { source }),
};

// What a job does. The service's pages without a script have the same words.
export function stage(job) {
  const [name] = job.stage.split(/ from | [(]/);
  const words = name === "ordering" ? gettext("Sending to %(publisher)s", { publisher: job.publisher })
    : told.stages[name] || job.stage[0].toUpperCase() + job.stage.slice(1);
  if (name !== "retrieving" || !(job.expected || job.received)) return gettext("%(stage)s.", { stage: words });
  const all = counted(job.expected || job.received, job.studies || []);
  return gettext("%(stage)s: %(images)s.", { stage: words, images: job.expected ? part(job.received, all) : all });
}

export const SEXES = { F: gettext("female"), M: gettext("male"), O: gettext("other") };

export function mustLook(kind, error, proves) { return kind === "print" && (Boolean(proves) || LOOK_FIRST.has(error.code)); }

export function advice(kind, error, proves) {
  const words = ADVICE[error.code] || error.error || gettext("Something went wrong. Ask again, or tell the administrator.");
  return mustLook(kind, error, proves) && error.code !== "print_uncertain" ? join(words, gettext("But look at the disc robot first: the disc may be there already.")) : words;
}

export function without(degraded) {
  return degraded.map((lack) => WITHOUT[lack] || OF_SOURCE[lack.split(":")[0]]?.(lack.split(":")[1]) || gettext("Made without %(lack)s.", { lack: lack.replaceAll("_", " ") }));
}

const UNPROVEN = ["counts_unknown", "completeness_not_proven", "source_down"];

// Whether every PACS has said of everything that it is there.
export function isProved(degraded) { return !degraded.some((lack) => UNPROVEN.includes(lack.split(":")[0])); }

const REPORTS = ["SR", "DOC"]; // modalities (PS3.3 C.7.3.1.1.1); as mkiso_service/counting.py has it

export function counted(number, studies) { // 412 images, 1 report, 413 images and reports
  const modalities = studies.flatMap((study) => study.modalities);
  if (!modalities.some((modality) => REPORTS.includes(modality))) return ngettext("%(number)s image", "%(number)s images", number);
  if (modalities.every((modality) => REPORTS.includes(modality))) return ngettext("%(number)s report", "%(number)s reports", number);
  return gettext("%(number)s images and reports", { number: number.toLocaleString(language) });
}

export function part(number, things) { return gettext("%(number)s of %(things)s", { number: number.toLocaleString(language), things }); }

export function ago(minutes) {
  if (minutes < 1) return gettext("less than a minute ago");
  if (minutes < 120) return ngettext("%(number)s minute ago", "%(number)s minutes ago", minutes);
  if (minutes < 2880) return ngettext("%(number)s hour ago", "%(number)s hours ago", Math.round(minutes / 60));
  return ngettext("%(number)s day ago", "%(number)s days ago", Math.round(minutes / 1440));
}

export function size(bytes) {
  for (const [unit, each] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= each) {
      const digits = bytes < 10 * each ? 1 : 0;
      return `${(bytes / each).toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false })} ${unit}`;
    }
  }
  return ngettext("%(number)s byte", "%(number)s bytes", bytes);
}

export function day(date) { return date.length === 8 ? `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}` : date; }
