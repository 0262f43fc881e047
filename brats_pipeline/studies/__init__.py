"""Studies: networks and recipes compared on the same cases, from one YAML file.

``reading`` makes a ``plan`` of the file and ``checks`` holds it against the bundles; ``opening`` settles data and
folds; ``units`` are what is trained, ``running`` trains them; ``gathering`` scores the arms, ``comparing`` compares
them; of these ``figures`` come ``tables`` and the ``page`` that ``merging`` writes; ``study`` is all of it.
"""

from __future__ import annotations
