FROM busybox
ENV v=x
ENV A='$v \ "' B="$v \$v \" \\ \n '" C=\$v D=a\ b E=\"\'\\ F="a"'b'c G=""'' H="${v:-'q'}" I=${none:-'q r'"s"\}}
LABEL 'a b'="c d" e\ f=g "$v"=$v
WORKDIR "/a b"/'$v'/$v
USER "u:g"
VOLUME "/v"'w' '/x'\ y
STOPSIGNAL "SIG$none"KILL
EXPOSE "8${none}0" '90/udp'
