// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Every statement of the wire contract has a test that carries its id, or a line that says why not.

#[cfg(test)]
mod contract {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The number of a `W-nnn`.
    type Id = u16;

    /// The crates whose tests may prove a statement.
    const CRATES: [&str; 5] = ["oci", "crds", "registry", "operator", "e2e"];

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    fn read(path: &str) -> String {
        fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Three digits at the beginning of `text`, and what follows them.
    fn number(text: &str) -> Option<(Id, &str)> {
        let (digits, rest) = text.split_at_checked(3)?;
        let is_number = digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| (digits.parse().unwrap(), rest))
    }

    /// The ids that a row or a sentence states: the first cell of a table, or in bold.
    fn stated(contract: &str) -> BTreeSet<Id> {
        let rows = contract.lines().filter_map(|line| line.strip_prefix("| W-"));
        let sentences = contract.split("**W-").skip(1);
        rows.chain(sentences)
            .map(|text| number(text).unwrap_or_else(|| panic!("not an id: W-{text}")).0)
            .collect()
    }

    /// The ids in a function name such as `w274_w770_a_document_of_two_shapes_is_refused`.
    fn ids_of(function: &str) -> BTreeSet<Id> {
        let id = |word: &str| {
            number(word.strip_prefix('w')?).filter(|(_, rest)| rest.is_empty()).map(|(id, _)| id)
        };
        function.split('_').map_while(id).collect()
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The ids that tests carry, each with the name of one of them.
    fn tested() -> BTreeMap<Id, String> {
        let mut files = Vec::new();
        for folder in CRATES {
            sources(&root().join(folder), &mut files);
        }
        let mut tested = BTreeMap::new();
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for line in text.lines() {
                let Some((_, declared)) = line.split_once("fn ") else { continue };
                let name: String =
                    declared.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                tested.extend(ids_of(&name).into_iter().map(|id| (id, name.clone())));
            }
        }
        tested
    }

    /// The ids of `W-147`, or of `W-140…146`.
    fn listed(ids: &str) -> Option<std::ops::RangeInclusive<Id>> {
        let (first, rest) = number(ids.strip_prefix("W-")?)?;
        match rest.strip_prefix('…') {
            Some(last) => number(last).filter(|(_, rest)| rest.is_empty()).map(|(last, _)| first..=last),
            None => rest.is_empty().then_some(first..=first),
        }
    }

    /// The ids that are known to be without a test. Each line gives its reason.
    fn excused(list: &str) -> BTreeSet<Id> {
        let mut excused = BTreeSet::new();
        for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let parsed = line.split_once(' ').filter(|(_, reason)| !reason.trim().is_empty());
            let ids =
                parsed.and_then(|(ids, _)| listed(ids)).unwrap_or_else(|| panic!("no id and reason: {line}"));
            for id in ids {
                assert!(excused.insert(id), "W-{id:03} is listed twice");
            }
        }
        excused
    }

    fn show(ids: impl IntoIterator<Item = Id>) -> String {
        ids.into_iter().map(|id| format!("W-{id:03}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_statement_of_the_wire_contract_has_a_test_or_a_reason() {
        let stated = stated(&read("docs/reference/wire.md"));
        let tested = tested();
        let excused = excused(&read("docs/reference/wire-untested.txt"));

        let open: Vec<Id> =
            stated.iter().copied().filter(|id| !tested.contains_key(id) && !excused.contains(id)).collect();
        assert!(open.is_empty(), "neither a test nor a line in wire-untested.txt: {}", show(open));

        let proven: Vec<Id> = excused.iter().copied().filter(|id| tested.contains_key(id)).collect();
        assert!(proven.is_empty(), "in wire-untested.txt, but tested: {}", show(proven));

        let unknown: Vec<Id> = excused.difference(&stated).copied().collect();
        assert!(unknown.is_empty(), "in wire-untested.txt, but not in the contract: {}", show(unknown));

        for (id, test) in &tested {
            assert!(stated.contains(id), "{test} proves W-{id:03}, which is not in the contract");
        }
    }

    #[test]
    fn ids_are_read_from_rows_sentences_names_and_ranges() {
        assert_eq!(stated("| W-001 U | x W-002 |\nsee W-003. **W-120** is\n"), BTreeSet::from([1, 120]));
        assert_eq!(ids_of("w274_w770_a_document"), BTreeSet::from([274, 770]));
        assert_eq!(ids_of("a_w274_name"), BTreeSet::new());
        assert_eq!(ids_of("w2740_name"), BTreeSet::new());
        assert_eq!(listed("W-140…146"), Some(140..=146));
        assert_eq!(listed("W-140"), Some(140..=140));
        assert_eq!(listed("W-14"), None);
        assert_eq!(
            excused("# note\nW-140…142 later\n\nW-150 by hand\n"),
            BTreeSet::from([140, 141, 142, 150])
        );
    }
}
