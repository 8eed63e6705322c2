FROM busybox AS base
#: --target bsae
