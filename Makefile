# SPDX-FileCopyrightText: The Stowage authors
# SPDX-License-Identifier: EUPL-1.2

TARGET := $(or $(CARGO_TARGET_DIR),target)
CLUSTER := $(TARGET)/release/stowage-cluster

.DEFAULT_GOAL := help
.PHONY: help run test check soak cluster cluster-down build bench flames image crds tools

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and start the embedded registry on 127.0.0.1:5000
	cargo build --locked --release -p stowage-registry
	@printf '%s\n' '' 'The registry answers on 127.0.0.1:5000. Try, in another terminal:' '' \
	  '  skopeo copy --dest-tls-verify=false docker://docker.io/library/alpine docker://127.0.0.1:5000/library/alpine' \
	  '  curl http://127.0.0.1:5000/v2/library/alpine/tags/list' \
	  '  curl "http://127.0.0.1:5001/readyz?verbose"' ''
	$(TARGET)/release/stowage-registry serve --config config/samples/standalone

test: ## install what is missing, then check and test everything
	tools/test all

check: ## the fast half of the tests
	tools/test check

soak: tools build ## the reliability tests at full length: SOAK=10m bounds each
	SOAK=$(or $(SOAK),4h) cargo test --locked -p stowage-registry --test it constant_memory
	SOAK=$(or $(SOAK),4h) cargo test --locked -p stowage-registry --test it a_power_cut_at_any_moment
	SOAK=$(or $(SOAK),4h) cargo test --locked -p stowage-registry --test it -- p39_ten_thousand_tags n4_no_run_deletes
	SOAK=$(or $(SOAK),4h) cargo test --locked -p stowage-e2e --test chaos -- --test-threads=1
	SOAK=$(or $(SOAK),4h) cargo test --locked -p stowage-registry --test it races:: -- --include-ignored --test-threads 2 --nocapture
	SOAK=$(or $(SOAK),4h) cargo test --locked -p stowage-e2e --test product w473_ -- --test-threads=1

build: ## the two release binaries
	cargo build --locked --release -p stowage-registry
	cargo build --locked --release -p stowage-operator

bench: ## measure Stowage and its peers side by side; ARGS='--help' shows what it takes
	tools/packages
	tools/build distribution versitygw
	cargo build --locked --release -p stowage-registry
	cargo build --locked --release -p stowage-bench
	$(TARGET)/release/stowage-bench --stowage $(TARGET)/release/stowage-registry $(ARGS)

flames: ## draw where the registry spends its time, as flame graphs in bench/results/flames
	tools/flames $(ARGS)

image: build ## the two container images, as OCI layout tarballs in target/images
	mkdir -p $(TARGET)/images
	for name in stowage-registry stowage-operator; do \
	  cargo run --locked --release -p stowage-e2e --bin stowage-image -- \
	    $(TARGET)/release/$$name --tarball $(TARGET)/images/$$name.tar || exit 1; \
	done

cluster: tools build ## a local cluster with the operator, S3, Postgres and a sample registry
	cargo build --locked --release -p stowage-e2e --bins
	$(CLUSTER) up
	$(CLUSTER) install

cluster-down: ## take the local cluster down
	cargo build --locked --release -p stowage-e2e --bins
	$(CLUSTER) down

crds: ## regenerate config/crd
	UPDATE=1 cargo test --locked -p stowage-crds --test it manifests

tools: ## install the packages and build the pinned tools
	tools/packages
	tools/build
