"""What instances say that hold no image, for people: structured reports, encapsulated documents, waveforms, and the
objects of radiotherapy.

    report = read_report(path)          # mkiso.reports.reading: never an exception for what a file holds

- values: what comes out: frozen values that pages are made from, text as it stands in the object.
- structured: SR documents of every class, as a list of content items in the order of reading.
- encapsulated: PDF, CDA and others as the files that they are; cda: the narrative of a CDA as safe HTML.
- waveforms, paper: recordings, and their drawing on millimetre paper.
- radiotherapy: plans, doses, structure sets and treatment records as tables.

Nothing here follows the nesting of a file by recursion, and each reading is bounded in depth, items, characters and
samples; what is beyond a bound is said.
"""
