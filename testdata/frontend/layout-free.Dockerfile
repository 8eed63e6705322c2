# a comment
from busybox as Builder
# another
run   echo a \
# inside

  b
From busybox
copy --chown=1:1   --from=BUILDER  /x   /y
