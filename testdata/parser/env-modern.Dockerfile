FROM busybox
ENV a=b c= d="" e=f=g "h i"=j k='l m'\ n
ENV o=$p${q:-r}${q:-"s t"}
