# SPDX-FileCopyrightText: The Stowage authors
# SPDX-License-Identifier: EUPL-1.2
{
  description = "An OCI registry that Kubernetes runs";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      # One package at a time, so that no feature of one leaks into the other.
      binary = pkgs: name: pkgs.rustPlatform.buildRustPackage {
        pname = name;
        version = "0.1.0";
        src = self;
        cargoLock.lockFile = ./Cargo.lock;
        cargoBuildFlags = [ "--package" name ];
        nativeBuildInputs = [ pkgs.cmake pkgs.perl ];
        # The tests want PostgreSQL, S3 servers and a cluster: `make test`.
        doCheck = false;
        meta = {
          description = "An OCI registry that Kubernetes runs";
          license = pkgs.lib.licenses.eupl12;
          mainProgram = name;
          platforms = systems;
        };
      };
    in
    {
      packages = each (pkgs: {
        default = binary pkgs "stowage-registry";
        stowage-registry = binary pkgs "stowage-registry";
        stowage-operator = binary pkgs "stowage-operator";
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.cargo pkgs.clippy pkgs.rustc pkgs.rustfmt pkgs.cargo-deny
            pkgs.cmake pkgs.perl pkgs.go pkgs.gnumake
            pkgs.postgresql pkgs.skopeo pkgs.kubectl
          ];
        };
      });
    };
}
