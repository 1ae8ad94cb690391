"""A study into a job's folder: what an earlier attempt stored is kept, the rest is retrieved, and each instance is of
its study's patient.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import Dataset

from mkiso.dataset.header import read_header
from mkiso.errors import InstanceConflict, MkisoError
from mkiso.sources.protocol import Source
from mkiso.sources.query import expected_instances, find_series
from mkiso.sources.retrieve import retrieve
from mkiso.storage.job import Job
from mkiso.study import identity
from mkiso.study.models import Arrival, Instance, Study
from mkiso.study.rejections import KEY_OBJECT
from mkiso.study.values import StudyRetrieved


def retrieve_study(
    source: Source,
    job: Job,
    study: Study,
    on_arrival: Callable[[Arrival], None],
    *,
    on_kept: Callable[[Arrival], None] = lambda _: None,
    elsewhere: Collection[str] = (),
    stop: threading.Event | None = None,
) -> StudyRetrieved:
    """From the source into the job's folder; the study is returned as the PACS held it at the end.

    What an earlier attempt has stored isn't moved again, nor are the instances that lie `elsewhere` (SOP Instance
    UIDs); of a study without a list of instances everything is, since as many as are counted may be others by now, and
    of one in which different bytes came under one UID. `on_arrival` hears of each instance that comes, `on_kept` of
    each that was there. Raises what retrieve raises, PatientMismatch, DamagedInstance.
    """
    instances: dict[str, Instance] = {}

    def take(arrival: Arrival) -> None:
        header = read_header(arrival.path)
        identity.same_patient(header, study)
        instances[arrival.sop_instance_uid] = Instance(arrival, header)

    def take_new(arrival: Arrival) -> None:
        take(arrival)
        job.remember(arrival)
        on_arrival(arrival)

    kept = job.kept(study.study_instance_uid, study.expected.instances or frozenset())
    for arrival in kept:
        take(arrival)
        on_kept(arrival)
    already = kept + [
        Arrival(uid, "", "", study.study_instance_uid, job.instances_dir / uid, 0, "") for uid in elsewhere
    ]
    try:
        grown = retrieve(source, job.settings.identity, study, job.instances_dir, already, take_new, stop)
    except InstanceConflict:  # of none that came can be said by now that it is the PACS's
        job.forget(study.study_instance_uid)
        raise
    return StudyRetrieved(grown, tuple(instances.values()), _notes_beside(source, job, grown, stop))


def _notes_beside(source: Source, job: Job, study: Study, stop: threading.Event | None) -> tuple[Dataset, ...]:
    """The headers of the Key Object Selections in series that aren't chosen: one may reject images of those that are
    (mkiso.study.rejections). Raises what retrieve raises, DamagedInstance.
    """
    if not study.chosen:
        return ()
    notes = [each.series_instance_uid for each in find_series(source, study) if each.modality == KEY_OBJECT]
    beside = replace(study, chosen=tuple(uid for uid in notes if uid not in study.chosen), listed_elsewhere=())
    if not beside.chosen:
        return ()
    beside = replace(beside, expected=expected_instances(source, beside))
    if beside.expected.count == 0:
        return ()
    headers: list[Dataset] = []

    def take(arrival: Arrival) -> None:
        headers.append(read_header(arrival.path))

    with TemporaryDirectory(dir=job.folder, prefix="notes") as folder:
        try:
            retrieve(source, job.settings.identity, beside, Path(folder), (), take, stop)
        except MkisoError as error:
            raise type(error)(
                f"A Key Object Selection of {study.called} may reject one of the chosen images, and can't be read, so "
                f"no disc was made. {error.words}",
                **error.details,
            ) from None
    return tuple(headers)
