"""Pictures of DICOM objects: each frame that can be shown as JPEG files, and what pages and a viewer need to know.

    with PicturePool(images, folder) as pool:
        wanted = [PictureRequest(path, folder, number=number) for number, path in …]
        renderings = [pool.begin(pool.render, request) for request in wanted]
        results = [rendering.result() for rendering in renderings]
    for stack in stacks_of(results): ...

- pool: processes of their own, bounded in memory and time, that reach no other file (confinement); what a file does to
  a decoder costs one picture.
- values: what goes in and comes out. A frame is either a Picture or a NotShown with its Reason, never neither.
- names: P…JPG the picture, T…JPG the thumbnail of a large one, D…JS the values as a script; numbered as the request
  says.
- stacks: the pictures in order, with the geometry for scrolling two series together; `scale_bar`.
- script: the format of the values of 8 to 16 bits for a viewer that windows them itself.

Within the processes: image and frames (where pixels lie), decoders, grey, luts, colour, overlays, presentation,
geometry, jpeg; render ties them together. Marks, laterality, scale bar and "not for diagnosis" are facts for pages to
draw: nothing but overlays is written into the pixels.
"""
