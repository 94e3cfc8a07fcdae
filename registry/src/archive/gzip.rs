// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A file that is compressed with gzip, as `docker save | gzip` makes it.
//!
//! Images are read here and there in a file, so it is unpacked first: piece by piece, into a temporary file.

use std::env;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};

use flate2::read::MultiGzDecoder;
use tempfile::NamedTempFile;

use super::PIECE;
use super::error::Trouble;

const MAGIC: [u8; 2] = *b"\x1f\x8b";

/// What `file` unpacks to, to be removed when it is dropped; `None`: it is not compressed with gzip.
pub(super) fn unpacked(file: &mut File) -> Result<Option<NamedTempFile>, Trouble> {
    let mut magic = Vec::new();
    Read::by_ref(file).take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(Trouble::Io)?;
    file.rewind().map_err(Trouble::Io)?;
    if magic != MAGIC {
        return Ok(None);
    }
    let no_room = |source| Trouble::NoRoom { folder: env::temp_dir(), source };
    let mut whole = NamedTempFile::new().map_err(no_room)?;
    let mut stream = MultiGzDecoder::new(io::BufReader::with_capacity(PIECE, file));
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece).map_err(broken)? {
            0 => return Ok(Some(whole)),
            read => whole.write_all(&piece[..read]).map_err(no_room)?,
        }
    }
}

/// What ends too early or cannot be unpacked is damaged; what cannot be read is the system's trouble.
fn broken(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Trouble::Truncated(None),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Trouble::Gzip,
        _ => Trouble::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn zipped(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn of(content: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        let whole = unpacked(&mut file)?;
        Ok(whole.map(|whole| std::fs::read(whole.path()).unwrap()))
    }

    #[test]
    fn one_member_or_several_are_unpacked_and_what_is_not_compressed_is_left() {
        let content: Vec<u8> = (0..3 * PIECE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        assert_eq!(of(&zipped(&content)).unwrap(), Some(content));
        assert_eq!(of(&[zipped(b"one"), zipped(b" other")].concat()).unwrap(), Some(b"one other".to_vec()));
        for other in [&b""[..], b"\x1f", b"a tar file"] {
            assert_eq!(of(other).unwrap(), None, "{other:?}");
        }
    }

    #[test]
    fn what_was_cut_anywhere_ends_in_the_middle() {
        let whole = zipped(b"some content");
        for length in 2..whole.len() {
            assert!(matches!(of(&whole[..length]), Err(Trouble::Truncated(None))), "{length}");
        }
    }

    #[test]
    fn wrong_bytes_are_damage() {
        let mut whole = zipped(b"some content");
        let checksum = whole.len() - 8;
        whole[checksum] ^= 1;
        assert!(matches!(of(&whole), Err(Trouble::Gzip)));
        let mut followed = zipped(b"some content");
        followed.extend_from_slice(b"something else");
        assert!(matches!(of(&followed), Err(Trouble::Gzip)));
    }
}
