// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

// The ORAS library as a client, over plain HTTP:
//
//	oras-client push REF TYPE FILE...      pushes an artifact of files, prints its digest
//	oras-client attach REF TYPE FILE...    the same, as a referrer of what REF names
//	oras-client discover REF               prints digest and type of every referrer
//	oras-client pull REF FOLDER            writes the files of an artifact, prints its digest
//
// ORAS_USER and ORAS_PASSWORD are the credentials, where there are any.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: oras-client push|attach|discover|pull REF [TYPE FILE...|FOLDER]")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, action, name string, rest []string) error {
	ref, err := registry.ParseReference(name)
	if err != nil {
		return err
	}
	repo := &remote.Repository{Reference: ref, PlainHTTP: true, Client: client(ref.Host())}
	switch {
	case action == "push" && len(rest) > 1:
		return push(ctx, repo, nil, rest[0], rest[1:])
	case action == "attach" && len(rest) > 1:
		subject, err := repo.Resolve(ctx, ref.Reference)
		if err != nil {
			return err
		}
		return push(ctx, repo, &subject, rest[0], rest[1:])
	case action == "discover":
		return discover(ctx, repo)
	case action == "pull" && len(rest) == 1:
		return pull(ctx, repo, rest[0])
	}
	return fmt.Errorf("cannot %s with %q", action, rest)
}

func client(host string) *auth.Client {
	credential := auth.Credential{Username: os.Getenv("ORAS_USER"), Password: os.Getenv("ORAS_PASSWORD")}
	return &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache(), Credential: auth.StaticCredential(host, credential)}
}

func push(ctx context.Context, repo *remote.Repository, subject *v1.Descriptor, artifactType string, files []string) error {
	store, err := file.New("")
	if err != nil {
		return err
	}
	defer store.Close()
	options := oras.PackManifestOptions{Subject: subject}
	for _, path := range files {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		layer, err := store.Add(ctx, filepath.Base(path), "", absolute)
		if err != nil {
			return err
		}
		options.Layers = append(options.Layers, layer)
	}
	manifest, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, artifactType, options)
	if err != nil {
		return err
	}
	if subject != nil || repo.Reference.Reference == "" {
		err = oras.CopyGraph(ctx, store, repo, manifest, oras.DefaultCopyGraphOptions)
	} else if err = store.Tag(ctx, manifest, repo.Reference.Reference); err == nil {
		_, err = oras.Copy(ctx, store, repo.Reference.Reference, repo, "", oras.DefaultCopyOptions)
	}
	if err == nil {
		fmt.Println(manifest.Digest)
	}
	return err
}

func discover(ctx context.Context, repo *remote.Repository) error {
	subject, err := repo.Resolve(ctx, repo.Reference.Reference)
	if err != nil {
		return err
	}
	return repo.Referrers(ctx, subject, "", func(referrers []v1.Descriptor) error {
		for _, referrer := range referrers {
			fmt.Println(referrer.Digest, referrer.ArtifactType)
		}
		return nil
	})
}

func pull(ctx context.Context, repo *remote.Repository, folder string) error {
	store, err := file.New(folder)
	if err != nil {
		return err
	}
	defer store.Close()
	manifest, err := oras.Copy(ctx, repo, repo.Reference.Reference, store, "", oras.DefaultCopyOptions)
	if err == nil {
		fmt.Println(manifest.Digest)
	}
	return err
}
