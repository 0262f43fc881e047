"""MONAI dictionary transforms and the chains made of them: files to tensors to label maps.

Import what you need from its module. Free of torch: :mod:`transforms.labels` (the table of conventions),
:mod:`transforms.nifti`, :mod:`transforms.scans` (any volume: NIfTI, MetaImage, NRRD; :mod:`transforms.decoding` bounds
what is unpacked), :mod:`transforms.slices` (files), :mod:`transforms.whole_numbers` (values of label maps) and
:mod:`transforms.slicer` (label maps for 3D Slicer). With torch and MONAI: :mod:`transforms.reader` and
:mod:`transforms.slice_stack` (loading, slices back to files),
:mod:`transforms.intensity`, :mod:`transforms.regions` (label maps and regions), :mod:`transforms.patches`,
:mod:`transforms.spatial`, :mod:`transforms.sharpness` and :mod:`transforms.contrast_augmentation` (random patches and
what happens to them), :mod:`transforms.presence` (missing modalities), :mod:`transforms.neighbours` (2.5D),
:mod:`transforms.cleaning` (holes, specks, nesting; the parts of a mask are found in :mod:`transforms.components`,
without torch), :mod:`transforms.postprocess` (label maps back to files).
"""
