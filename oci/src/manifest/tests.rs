// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use std::fmt::Write as _;

use super::*;
use crate::Algorithm;

const OCI_IMAGE: &str = ManifestKind::OciImage.media_type();
const OCI_INDEX: &str = ManifestKind::OciIndex.media_type();
const DOCKER_IMAGE: &str = ManifestKind::DockerImage.media_type();
const DOCKER_LIST: &str = ManifestKind::DockerList.media_type();

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn descriptor(content: &str) -> String {
    format!(r#"{{"mediaType":"text/plain","digest":"{}","size":{}}}"#, digest(content), content.len())
}

/// An OCI image with these further members.
fn image(more: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_IMAGE}","config":{}{more}}}"#, descriptor("config"))
}

fn index(manifests: &str) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":{manifests}}}"#)
}

fn accept(text: &str) -> Manifest {
    Manifest::parse(text.as_bytes(), None).unwrap()
}

fn refuse(text: &str) -> String {
    Manifest::parse(text.as_bytes(), None).expect_err(text).to_string()
}

#[test]
fn an_image_refers_to_its_config_and_layers_once_each() {
    let layers = format!(r#","layers":[{0},{1},{0}]"#, descriptor("one"), descriptor("config"));
    let manifest = accept(&image(&layers));
    assert_eq!(manifest.kind, ManifestKind::OciImage);
    assert_eq!(manifest.media_type, OCI_IMAGE);
    assert_eq!(manifest.blobs, [digest("config"), digest("one")]);
    assert_eq!(manifest.children, []);
}

#[test]
fn an_index_refers_to_its_children_once_each() {
    let manifest = accept(&index(&format!("[{0},{1},{0}]", descriptor("a"), descriptor("b"))));
    assert_eq!(manifest.children, [digest("a"), digest("b")]);
    assert_eq!((manifest.blobs, manifest.artifact_type), (vec![], None));
}

#[test]
fn w270_the_type_is_said_once_or_twice_alike() {
    let untyped = format!(r#"{{"schemaVersion":2,"config":{}}}"#, descriptor("config"));
    let parse = |text: &str, content_type| Manifest::parse(text.as_bytes(), content_type);
    assert!(matches!(parse(&untyped, None), Err(ManifestError::NoType)));
    assert!(matches!(parse(&untyped, Some(" ; charset=utf-8")), Err(ManifestError::NoType)));
    assert_eq!(parse(&untyped, Some(OCI_IMAGE)).unwrap().media_type, OCI_IMAGE);
    let with_parameter = format!("{OCI_IMAGE} ; charset=utf-8");
    assert_eq!(parse(&untyped, Some(&with_parameter)).unwrap().media_type, OCI_IMAGE);
    assert!(parse(&image(""), Some(&with_parameter)).is_ok());
    assert!(matches!(parse(&image(""), Some(DOCKER_IMAGE)), Err(ManifestError::TypesDiffer { .. })));
    assert!(matches!(parse(&image(""), Some("application/json")), Err(ManifestError::TypesDiffer { .. })));
    assert!(matches!(parse(&untyped, Some(DOCKER_IMAGE)), Err(ManifestError::NoMediaType(_))));
    let docker =
        format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_IMAGE}","config":{}}}"#, descriptor("c"));
    assert_eq!(parse(&docker, Some(DOCKER_IMAGE)).unwrap().kind, ManifestKind::DockerImage);
    assert_eq!(parse(&docker, None).unwrap().kind, ManifestKind::DockerImage);
}

#[test]
fn w271_w104_other_types_and_schema_1_are_refused() {
    for media_type in ["application/vnd.oci.artifact.manifest.v1+json", "text/plain", ""] {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}"}}"#);
        assert!(refuse(&text).contains("not supported"), "{media_type}");
    }
    for media_type in SCHEMA_1 {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}"}}"#);
        assert!(refuse(&text).contains("schema 1"), "{media_type}");
    }
    assert!(refuse(r#"{"schemaVersion":1,"name":"a","fsLayers":[],"signatures":[]}"#).contains("schema 1"));
}

#[test]
fn w274_w770_a_document_of_two_shapes_is_refused_whatever_the_values() {
    for value in ["null", "[]"] {
        assert!(refuse(&image(&format!(r#","manifests":{value}"#))).contains("must not have \"manifests\""));
        for field in ["layers", "config"] {
            let text =
                format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[],"{field}":null}}"#);
            assert!(refuse(&text).contains(&format!("must not have {field:?}")));
        }
    }
    let list = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[],"layers":[]}}"#);
    assert!(matches!(
        Manifest::parse(list.as_bytes(), None),
        Err(ManifestError::WrongShape { field: "layers", .. })
    ));
}

#[test]
fn a_document_without_the_fields_of_its_type_is_refused() {
    let text = |media_type: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}"}}"#);
    assert!(refuse(&text(OCI_IMAGE)).contains("must have \"config\""));
    assert!(refuse(&text(OCI_INDEX)).contains("must have \"manifests\""));
    assert!(refuse(&text(DOCKER_LIST)).contains("must have \"manifests\""));
}

#[test]
fn w275_the_schema_version_is_the_number_2() {
    for version in ["", r#""schemaVersion":3,"#, r#""schemaVersion":null,"#] {
        let text = format!(r#"{{{version}"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert_eq!(refuse(&text), "schemaVersion must be 2", "{version}");
    }
    for version in ["2.0", "\"2\"", "-2", "true"] {
        let text = format!(r#"{{"schemaVersion":{version},"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert!(refuse(&text).contains("line 1 column"), "{version}");
    }
}

#[test]
fn w275_w800_a_size_is_a_whole_number_up_to_two_to_the_63_less_one() {
    let sized = |size: &str| index(&format!(r#"[{{"digest":"{}","size":{size}}}]"#, digest("a")));
    for size in ["-1", "9223372036854775808", "18446744073709551616", "1.5", "\"1\"", "null", "1e3", "[]"] {
        assert!(refuse(&sized(size)).contains("line 1 column"), "{size}");
    }
    accept(&sized("0"));
    accept(&sized("9223372036854775807"));
}

#[test]
fn w275_every_descriptor_has_a_digest_we_can_look_up() {
    let malformed = ["sha256:abc", "abc", "", "md5:d41d8cd98f00b204e9800998ecf8427e"];
    for bad in malformed {
        let bad = format!(r#"{{"mediaType":"text/plain","digest":"{bad}","size":1}}"#);
        let untyped = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_IMAGE}","config":{bad}}}"#);
        for text in [
            untyped,
            image(&format!(r#","layers":[{bad}]"#)),
            image(&format!(r#","subject":{bad}"#)),
            index(&format!("[{bad}]")),
        ] {
            assert!(refuse(&text).contains("digest"), "{text}");
        }
    }
    assert!(refuse(&index(r#"[{"size":1}]"#)).contains("missing field `digest`"));
    assert!(refuse(&index(&format!(r#"[["text/plain","{}",1]]"#, digest("a")))).contains("an object"));
    assert!(refuse("[]").contains("an object"));
}

#[test]
fn w275_bytes_that_two_readers_could_take_differently_are_refused() {
    let parse = |bytes: &[u8]| Manifest::parse(bytes, None).unwrap_err();
    let good = image("");
    assert!(matches!(parse(&[b"\xef\xbb\xbf", good.as_bytes()].concat()), ManifestError::ByteOrderMark));
    assert!(parse(&[good.as_bytes(), b"{}"].concat()).to_string().contains("trailing"));
    assert!(matches!(parse(b"{\"a\":\"\xff\"}"), ManifestError::NotUtf8(_)));
    assert!(refuse(&image(r#","x":{"a":1,"a":1}"#)).contains("twice"));
    assert!(refuse(&image(&format!(r#","config":{}"#, descriptor("other")))).contains("twice"));
    let deep = |levels: usize| image(&format!(r#","x":{}{}"#, "[".repeat(levels), "]".repeat(levels)));
    accept(&deep(63));
    assert!(refuse(&deep(64)).contains("nested deeper than 64 levels"));
    assert!(refuse("{").contains("line 1"));
}

#[test]
fn w275_w902_ten_thousand_descriptors_are_read_and_one_more_is_not() {
    let children = |count: usize| {
        let mut list = descriptor("0");
        for _ in 1..count {
            write!(list, ",{}", descriptor("0")).unwrap();
        }
        index(&format!("[{list}]"))
    };
    accept(&children(10_000));
    assert!(refuse(&children(10_001)).contains("10001 descriptors"));
}

#[test]
fn w276_what_the_specification_leaves_open_is_accepted() {
    for more in [
        r#","layers":[]"#,
        r#","layers":null"#,
        "",
        r#","x-custom":{"deep":[1,1.5,null]}"#,
        &format!(r#","subject":{{"digest":"{}"}}"#, digest("subject")),
        &format!(
            r#","layers":[{{"mediaType":"a/b+encrypted","digest":"{}","size":1,"data":"not base64!"}}]"#,
            digest("l")
        ),
    ] {
        accept(&image(more));
    }
    for manifests in ["[]", "null"] {
        assert_eq!(accept(&index(manifests)).children, []);
    }
    let nested = format!(r#"{{"mediaType":"{OCI_INDEX}","digest":"{}","size":2}}"#, digest("inner"));
    assert_eq!(accept(&index(&format!("[{nested}]"))).children, [digest("inner")]);
}

#[test]
fn w277_layers_that_need_not_be_here_are_left_out() {
    for media_type in NON_DISTRIBUTABLE {
        for urls in ["", r#","urls":["https://example.com/layer"]"#] {
            let layer =
                format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":1{urls}}}"#, digest("foreign"));
            let manifest = accept(&image(&format!(r#","layers":[{layer},{}]"#, descriptor("own"))));
            assert_eq!(manifest.blobs, [digest("config"), digest("own")], "{media_type}");
        }
    }
}

#[test]
fn w393_the_artifact_type_is_its_own_or_that_of_the_config() {
    assert_eq!(accept(&image("")).artifact_type.as_deref(), Some("text/plain"));
    assert_eq!(accept(&image(r#","artifactType":"a/b""#)).artifact_type.as_deref(), Some("a/b"));
    assert_eq!(accept(&image(r#","artifactType":"""#)).artifact_type.as_deref(), Some("text/plain"));
    assert_eq!(accept(&index("[]")).artifact_type, None);
    let annotated = accept(&image(r#","annotations":{"k":"v"}"#));
    assert_eq!(annotated.annotations, Some(BTreeMap::from([("k".to_owned(), "v".to_owned())])));
}

#[test]
fn w397_a_docker_manifest_has_no_subject() {
    let members = format!(r#""annotations":{{"k":"v"}},"subject":{}"#, descriptor("subject"));
    let docker = format!(
        r#"{{"schemaVersion":2,"mediaType":"{DOCKER_IMAGE}","config":{},{members}}}"#,
        descriptor("config")
    );
    let manifest = accept(&docker);
    assert_eq!((manifest.subject, manifest.annotations, manifest.artifact_type), (None, None, None));
    assert_eq!(accept(&image(&format!(",{members}"))).subject, Some(digest("subject")));
}

#[test]
fn w735_annotations_beside_a_subject_fit_a_page_of_referrers() {
    let subject = descriptor("subject");
    // `{"k":""}` takes eight bytes.
    let annotated = |length: usize| format!(r#","annotations":{{"k":"{}"}}"#, "x".repeat(length - 8));
    accept(&image(&format!(r#"{},"subject":{subject}"#, annotated(1024 * 1024))));
    let too_long = annotated(1024 * 1024 + 1);
    assert!(refuse(&image(&format!(r#"{too_long},"subject":{subject}"#))).contains("annotations"));
    accept(&image(&too_long));
}
