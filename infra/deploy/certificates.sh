#!/usr/bin/env bash
# Make the certificates that Dask's scheduler, workers and clients know each other by:
#     infra/deploy/certificates.sh FOLDER
# An authority of its own, and one certificate that all of them show; both are good for a year.
set -euo pipefail
umask 077

folder=${1:?name the folder that the certificates go to}
mkdir -p "$folder"
cd "$folder"
[[ ! -e dask-ca.key ]] || { echo "$folder/dask-ca.key is there already" >&2 && exit 1; }

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 366 \
    -subj "/CN=tapir-dask-authority" -keyout dask-ca.key -out dask-ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -subj "/CN=tapir-dask" -keyout dask.key -out dask.csr 2>/dev/null
openssl x509 -req -in dask.csr -CA dask-ca.pem -CAkey dask-ca.key -CAcreateserial -days 366 \
    -out dask.pem 2>/dev/null
rm dask.csr
