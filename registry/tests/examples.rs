// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The examples do what they say: each is run, and takes a push.

#[cfg(test)]
mod examples {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpStream;
    use std::process::{Child, ChildStdout, Command, Stdio};

    const INDEX: &str =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

    /// A running example, ended with its guard.
    struct Example {
        process: Child,
        output: BufReader<ChildStdout>,
        address: String,
        _folder: tempfile::TempDir,
    }

    impl Example {
        fn run(name: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            // Tests lie in `deps`, beside `examples`.
            let build = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
            let mut command = Command::new(build.join("examples").join(name));
            command.arg("127.0.0.1:0").arg(folder.path()).stdout(Stdio::piped());
            let mut process = command.spawn().unwrap();
            let mut output = BufReader::new(process.stdout.take().unwrap());
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            let address = line.trim().strip_prefix("http://").unwrap().to_owned();
            Self { process, output, address, _folder: folder }
        }

        /// The status line of the answer.
        fn request(&self, head: &str, body: &str) -> String {
            let mut stream = TcpStream::connect(&self.address).unwrap();
            let length = body.len();
            write!(
                stream,
                "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.lines().next().unwrap_or_default().to_owned()
        }

        fn takes_a_push(&self) {
            assert_eq!(self.request("PUT /v2/some/app/manifests/1.0", INDEX), "HTTP/1.1 201 Created");
            assert_eq!(self.request("GET /v2/some/app/manifests/1.0", ""), "HTTP/1.1 200 OK");
        }
    }

    impl Drop for Example {
        fn drop(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }

    #[test]
    fn the_registry_mounts_in_an_axum_application_that_keeps_its_routes() {
        let example = Example::run("axum");
        example.takes_a_push();
        assert_eq!(example.request("GET /", ""), "HTTP/1.1 200 OK");
    }

    #[test]
    fn the_registry_serves_on_bare_hyper() {
        Example::run("hyper").takes_a_push();
    }

    #[test]
    fn the_hook_is_told_once_of_a_pushed_manifest() {
        let mut example = Example::run("hook");
        example.takes_a_push();
        let mut told = String::new();
        example.output.read_line(&mut told).unwrap();
        assert!(told.starts_with("pushed some/app@sha256:") && told.ends_with(" 1.0\n"), "{told}");
    }

    #[tokio::test]
    async fn a_registry_for_a_test_is_gone_with_its_guard() {
        let registry = stowage_registry::testing::start().await;
        let (address, folder) = (registry.host(), registry.folder().to_owned());
        assert!(TcpStream::connect(&address).is_ok());
        drop(registry);
        tokio::task::yield_now().await;
        assert!(!folder.exists());
    }
}
