# escape=`
FROM busybox
ENV v=x A=`$v B=c:\d\$v C="a`"b`` \" D=e` f E=`'
WORKDIR /w\$v`y
COPY --chown=`$v a$v b`$v
COPY <<f /f
$v \$v `$v \\
f
