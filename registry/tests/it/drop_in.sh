#!/bin/sh
# SPDX-FileCopyrightText: The Stowage authors
# SPDX-License-Identifier: EUPL-1.2
#
# Pushes, lists, pulls and deletes at the registry $1, and says what it saw. $CRANE is crane.
set -eu
repository=$1/team/app
crane() { "$CRANE" --insecure "$@"; }

echo 'some content' >file
tar --create --mtime=@0 --owner=0 --group=0 --numeric-owner --file=layer.tar file
crane append --new_layer layer.tar --new_tag "$repository:1" 2>/dev/null
crane tag "$repository:1" 2
crane ls "$repository"
digest=$(crane digest "$repository:2")
echo "$digest"
crane manifest "$repository@$digest" | sha256sum
crane pull --format=oci "$repository:1" pulled
sha256sum pulled/blobs/sha256/* | cut -d' ' -f1
crane export "$repository:1" - | tar --extract --to-stdout file

echo "$(curl --fail --silent --show-error "http://$1/v2/_catalog")"
echo "$(curl --fail --silent --show-error "http://$1/v2/team/app/tags/list")"
upload=$(curl --fail --silent --show-error --request POST --output /dev/null \
  --write-out '%header{location}' "http://$1/v2/team/app/blobs/uploads/")
case $upload in http*) ;; *) upload=http://$1$upload ;; esac
case $upload in *\?*) upload="$upload&" ;; *) upload="$upload?" ;; esac
blob=sha256:$(sha256sum <file | cut -d' ' -f1)
curl --fail --silent --show-error --request PUT --data-binary @file \
  --header 'Content-Type: application/octet-stream' --write-out '%{http_code}\n' "${upload}digest=$blob"
curl --fail --silent --show-error "http://$1/v2/team/app/blobs/$blob"
curl --silent --request DELETE --write-out '%{http_code}\n' "http://$1/v2/team/app/blobs/$blob"
curl --silent --output /dev/null --write-out '%{http_code}\n' "http://$1/v2/team/app/blobs/$blob"

crane delete "$repository@$digest"
crane ls "$repository"
crane digest "$repository:1" 2>/dev/null || echo deleted
