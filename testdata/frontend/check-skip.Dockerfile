# check=skip=StageNameCasing,MaintainerDeprecated
FROM busybox AS Base
MAINTAINER x
CMD y
