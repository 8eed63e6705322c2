FROM scratch AS Scratch2
FROM SCRATCH2
from scratch2 as x
