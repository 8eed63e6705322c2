FROM busybox
ENV set=value empty="" path=/usr/local/bin:x.tar.gz
ENV A=${set:-w}${empty:-w}${none:-w} B=${set-w}${empty-w}${none-w}.
ENV C=${set:+w}${empty:+w}${none:+w}. D=${set+w}${empty+w}${none+w}.
ENV E=${set:?m}${set?m}${empty?m} F=${none:-${other:-"z  y"}} G=${none:-a}} H=$set-$empty-$none.
ENV I=${path#*/} J=${path##*/} K=${path%.*} L=${path%%.*} M=${path%l?c*}
ENV N=${path/l/L} O=${path//l/L} P=${path//\//:} Q=${path//./\/} R=${set///-} T=${set//a*/x} U=${path/z/y}
ENV V=$1$10x$0 W=$@$*$#$?$-$!$$. X=$ Y=$. Z=$set$none${set}_x
