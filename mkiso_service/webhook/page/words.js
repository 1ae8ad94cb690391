// The words of the page in the browser's language, and what a clerk can do about an error.
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

const WITHOUT = {
  patient_api: gettext("The hospital's patient data wasn't available; the disc has the name from the PACS."),
  counts_unknown: gettext("The PACS doesn't say how many images there are: check that none is missing."),
  completeness_not_proven: gettext("No PACS was asked how many images there are: check that none is missing."),
  priors_unknown: gettext("Not all earlier examinations could be looked for: there may be some that belong here."),
  "prior_left_out:contradicts": gettext("An earlier examination isn't on the disc: its data disagree about whose it is."),
  "prior_left_out:incomplete": gettext("An earlier examination isn't on the disc: not all of its images could be had."),
  "prior_left_out:unavailable": gettext("An earlier examination isn't on the disc: it couldn't be fetched at that time."),
  "prior_left_out:no_room": gettext("An earlier examination isn't on the disc: there was no room for it."),
  "prior_left_out:not_convertible": gettext("An earlier examination isn't on the disc: not all of its images can be stored uncompressed."),
  other_person: gettext("The images have another name or birth date than is known of this patient. Have it clarified whose they are before you hand the disc out."),
  label_letters: gettext("The disc's label shows something in other letters, since the robot doesn't have those."),
};

const OF_SOURCE = { // followed by a colon and the source's name
  source_down: (source) => gettext("The PACS %(source)s couldn't be asked: it may have more images.", { source }),
  sources_differ: (source) => gettext("The PACS %(source)s has other images or other data of a study; the disc has what the most complete PACS has.", { source }),
};

// What a job does. The service's pages without a script have the same words.
export function stage(job) {
  const [name] = job.stage.split(/ from | [(]/);
  const words = told.stages[name] || (job.publisher ? gettext("Sending to %(publisher)s", { publisher: job.publisher }) // whatever is told of it
    : job.stage[0].toUpperCase() + job.stage.slice(1));
  if (name !== "retrieving" || !(job.expected || job.received)) return gettext("%(stage)s.", { stage: words });
  const all = counted(job.expected || job.received, job.studies || []);
  return gettext("%(stage)s: %(images)s.", { stage: words, images: job.expected ? part(job.received, all) : all });
}

export const SEXES = { F: gettext("female"), M: gettext("male"), O: gettext("other") };

export function mustLook(kind, error, proves) { return kind === "print" && (Boolean(proves) || told.lookFirst.includes(error.code)); }

export function advice(kind, error, proves) {
  const words = told.advice[error.code] || error.error || gettext("Something went wrong. Ask again, or tell the administrator.");
  return mustLook(kind, error, proves) && error.code !== "print_uncertain" ? join(words, gettext("But look at the disc robot first: the disc may be there already.")) : words;
}

export function without(degraded) {
  return degraded.map((lack) => WITHOUT[lack] || OF_SOURCE[lack.split(":")[0]]?.(lack.split(":")[1]) || gettext("Made without %(lack)s.", { lack: lack.replaceAll("_", " ") }));
}

// Whether it is about earlier examinations beside those that were asked for.
export function isOfPriors(lack) { return lack.startsWith("prior"); }

const UNPROVEN = ["counts_unknown", "completeness_not_proven", "source_down"];

// Whether every PACS has said of everything that it is there.
export function isProved(degraded) { return !degraded.some((lack) => UNPROVEN.includes(lack.split(":")[0])); }

const REPORTS = ["SR", "DOC"]; // modalities (PS3.3 C.7.3.1.1.1); as mkiso_service/counting.py has it
const OTHERS = ["AU", "ECG", "EEG", "EMG", "EOG", "EPS", "FID", "HD", "KO", "PR", "REG", "RESP", "RTPLAN", "RTRECORD", "RTSTRUCT"];

export function counted(number, studies) { // 412 images, 1 report, 2 objects, 413 images and reports
  const modalities = studies.flatMap((study) => study.modalities);
  const imageless = modalities.length > 0 && modalities.every((modality) => REPORTS.includes(modality) || OTHERS.includes(modality));
  if (imageless && modalities.some((modality) => OTHERS.includes(modality))) return ngettext("%(number)s object", "%(number)s objects", number);
  if (!modalities.some((modality) => REPORTS.includes(modality))) return ngettext("%(number)s image", "%(number)s images", number);
  if (modalities.every((modality) => REPORTS.includes(modality))) return ngettext("%(number)s report", "%(number)s reports", number);
  if (number === 1) return gettext("1 image or report");
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
  for (const [unit, each] of [["gigabyte", 1e9], ["megabyte", 1e6], ["kilobyte", 1e3]]) {
    if (bytes < each) continue;
    const digits = bytes < 10 * each ? 1 : 0;
    return (bytes / each).toLocaleString(language, { style: "unit", unit, unitDisplay: "short", minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false });
  }
  return ngettext("%(number)s byte", "%(number)s bytes", bytes);
}

// Another era than the common one is named beside the year.
const LONG = { calendar: told.calendar, ...(told.calendar === "gregory" ? { dateStyle: "long" } : { day: "numeric", month: "long", year: "numeric", era: "short" }) };
const days = new Intl.DateTimeFormat(language, { ...LONG, timeZone: "UTC" });

// A DICOM date (VR DA) with its month in words, as Language.da of the service has it; what is none is left as it is.
export function day(date) {
  const [year, month, dayOfMonth] = [date.slice(0, 4), date.slice(4, 6), date.slice(6)];
  const moment = new Date(`${year}-${month}-${dayOfMonth}T00:00:00Z`);
  const isDay = /^\d{8}$/.test(date) && moment.getUTCDate() === Number(dayOfMonth); // 31 April would be 1 May
  return isDay ? days.format(moment) : date;
}

// A moment (ISO 8601) as this browser's clock has it: of today the time alone. Empty for what is none.
export function clock(moment) {
  const when = new Date(moment);
  if (Number.isNaN(when.getTime())) return "";
  const time = when.toLocaleTimeString(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }); // as the service writes it
  if (when.toDateString() === new Date().toDateString()) return time;
  return `${new Intl.DateTimeFormat(language, LONG).format(when)}, ${time}`;
}
