"""MONAI dictionary transforms and the chains made of them: files to tensors to label maps.

Import what you need from its module: :mod:`transforms.labels` (the table of conventions), :mod:`transforms.nifti`
(files), :mod:`transforms.reader`, :mod:`transforms.regions`, :mod:`transforms.preprocess`,
:mod:`transforms.postprocess`.
"""
