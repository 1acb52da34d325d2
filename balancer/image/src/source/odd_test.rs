//! Odd archives from a seed: what archivers write that a usual one does not.

const DIALECTS: [&[u8]; 3] = [b"ustar  \0", b"ustar\x0000", b"\0\0\0\0\0\0\0\0"];
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ACL: &[u8] = b"user::rw-,user:1000:rw-,group::r--,mask::rw-,other::---";

/// Which program reads the archive as well. Each refuses something that the other takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// GNU tar: an archive on its own, numbers are not blank, no `..`.
    Tar,
    /// A reader of layers in Go: no contiguous files, no global headers, no sparse files of the old form.
    Umoci,
}

/// An archive that grows, and what it has so far.
pub(super) struct Odd {
    pub rng: fastrand::Rng,
    pub bytes: Vec<u8>,
    reader: Reader,
    folders: Vec<String>,
    links: Vec<String>,
    /// Files that have a name now, also of lower layers.
    files: Vec<String>,
    own: Vec<String>,
}

impl Odd {
    pub(super) fn new(seed: u64, reader: Reader) -> Self {
        let (folders, links, files, own) = (vec![String::new()], Vec::new(), Vec::new(), Vec::new());
        Self { rng: fastrand::Rng::with_seed(seed), bytes: Vec::new(), reader, folders, links, files, own }
    }

    /// A whole archive; another one on top of it can follow.
    pub(super) fn archive(&mut self) -> Vec<u8> {
        self.own.clear();
        if self.reader == Reader::Tar && self.rng.u8(..4) == 0 {
            self.global();
        }
        for _ in 0..self.rng.usize(3..25) {
            self.member();
        }
        self.bytes.extend([0; 1024]);
        std::mem::take(&mut self.bytes)
    }

    fn one(&mut self, of: &[String]) -> String {
        of[self.rng.usize(..of.len())].clone()
    }

    /// A path that is written in one of several ways.
    fn spelled(&mut self, path: &str) -> String {
        let path = if self.rng.u8(..6) == 0 { path.replace('/', "//") } else { path.into() };
        match self.rng.u8(..5) {
            0 => format!("/{path}"),
            1 => format!("./{path}"),
            2 if self.reader == Reader::Umoci => format!("x/../{path}"),
            _ => path,
        }
    }

    /// A folder to put something into: listed, not listed, or a link to one.
    fn parent(&mut self) -> String {
        let links = self.links.clone();
        let folders = self.folders.clone();
        match self.rng.u8(..5) {
            0 if !links.is_empty() => self.one(&links) + "/",
            1 => {
                let name = format!("d{}/n{}", self.rng.u8(..3), self.rng.u8(..2));
                name + "/"
            }
            _ => match self.one(&folders) {
                root if root.is_empty() => root,
                folder => folder + "/",
            },
        }
    }

    fn member(&mut self) {
        match self.rng.u8(..14) {
            0..=2 => self.folder(),
            3 => self.link_to_folder(),
            4 => self.hard_link(),
            5 => self.special(),
            6 => self.sparse(),
            7 if self.reader == Reader::Umoci => self.whiteout(),
            _ => self.file(),
        }
    }

    fn folder(&mut self) {
        let path = format!("{}d{}", self.parent(), self.rng.u8(..3));
        let mode = [0o755, 0o1777, 0o700, 0o775][self.rng.usize(..4)];
        let path = if self.rng.u8(..12) == 0 { String::new() } else { path };
        let mut name = self.spelled(&path);
        if name.is_empty() {
            name = "./".into();
        } else if !name.ends_with('/') {
            name.push('/');
        }
        // Archives of before 1988 have the slash alone.
        let kind = if self.rng.u8(..5) == 0 && !path.is_empty() { b'\0' } else { b'5' };
        self.write(&name, "", kind, mode, &[], &[]);
        if !path.is_empty() && path.len() < 20 {
            self.folders.push(path);
        }
    }

    fn link_to_folder(&mut self) {
        let folders: Vec<String> = self.folders.iter().filter(|folder| !folder.is_empty()).cloned().collect();
        if folders.is_empty() {
            return;
        }
        let (name, target) = (format!("l{}", self.rng.u8(..3)), self.one(&folders));
        if !self.links.contains(&name) && !target.starts_with('l') {
            self.write(&name, &target, b'2', 0o777, &[], &[]);
            self.links.push(name);
        }
    }

    fn hard_link(&mut self) {
        let files = self.files.clone();
        if files.is_empty() {
            return;
        }
        let (target, path) = (self.one(&files), format!("{}f{}", self.parent(), self.rng.u8(..6)));
        if target == path {
            return;
        }
        let (name, link) = (self.spelled(&path), self.spelled(&target));
        self.write(&name, &link, b'1', 0o644, &[], &[]);
        self.put(path);
    }

    fn put(&mut self, path: String) {
        self.own.push(path.clone());
        self.files.push(path);
    }

    fn special(&mut self) {
        let path = format!("{}f{}", self.parent(), self.rng.u8(..6));
        let name = self.spelled(&path);
        match self.rng.u8(..4) {
            0 => self.write(&name, "", b'6', 0o600, &[], &[]),
            1 => self.write(&name, "", b'3', 0o666, &[], &[]),
            // It leads nowhere, and nothing is put below it.
            2 => {
                let name = format!("a{}", self.bytes.len());
                self.write(&name, "/no/where", b'2', 0o777, &[], &[]);
            }
            _ => self.write(&name, "no where", b'2', 0o777, &[], &[]),
        }
        if !name.is_empty() {
            self.files.retain(|file| *file != path);
        }
    }

    fn file(&mut self) {
        let path = match self.rng.u8(..12) {
            0 => format!("{}{}", self.parent(), "long".repeat(self.rng.usize(10..60))),
            1 => format!("{}caf\u{e9} {}", self.parent(), self.rng.u8(..3)),
            _ => format!("{}f{}", self.parent(), self.rng.u8(..6)),
        };
        let mode = [0o644, 0o4755, 0o600, 0o2711][self.rng.usize(..4)];
        let contents: Vec<u8> = (0..self.rng.usize(..1500)).map(|_| self.rng.u8(..)).collect();
        let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut mode = mode;
        match self.rng.u8(..10) {
            0 => records.push(("SCHILY.xattr.user.a", b"line\nend=".to_vec())),
            1 => {
                records.push(("SCHILY.xattr.security.capability", CAPABILITY.to_vec()));
                mode = 0o755;
            }
            2 if self.reader == Reader::Tar => {
                records.push(("SCHILY.acl.access", ACL.to_vec()));
                mode = 0o660;
            }
            3 => records.push(("uid", b"3000000000".to_vec())),
            4 => records.push(("mtime", b"-3600.5".to_vec())),
            // GNU tar takes the empty name.
            5 if self.reader == Reader::Umoci => records.push(("path", Vec::new())),
            6 => records.push(("comment", Vec::new())),
            _ => {}
        }
        let name = self.spelled(&path);
        let kinds: &[u8] = if self.reader == Reader::Tar { b"00\x007" } else { b"00\0" };
        let kind = kinds[self.rng.usize(..kinds.len())];
        self.write(&name, "", kind, mode, &contents, &records);
        self.put(path);
    }

    /// Whiteouts come before what the layer itself has of that name.
    fn whiteout(&mut self) {
        let hidden: Vec<String> =
            self.files.iter().filter(|file| !self.own.contains(file)).cloned().collect();
        if self.rng.u8(..4) == 0 && self.own.is_empty() {
            let folder = self.folders[self.rng.usize(..self.folders.len())].clone();
            let separator = if folder.is_empty() { "" } else { "/" };
            self.write(&format!("{folder}{separator}.wh..wh..opq"), "", b'0', 0o644, &[], &[]);
            self.files.retain(|file| !file.starts_with(&(folder.clone() + separator)));
            self.files.retain(|file| !file.starts_with('l'));
            if folder.is_empty() {
                self.links.clear();
            }
        } else if !hidden.is_empty() && self.own.is_empty() {
            let path = self.one(&hidden);
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let separator = if folder.is_empty() { "" } else { "/" };
            self.write(&format!("{folder}{separator}.wh.{name}"), "", b'0', 0o644, &[], &[]);
            // Another spelling of it may be through a link.
            let last = format!("/{name}");
            self.files.retain(|file| file != name && !file.ends_with(&last));
        }
    }

    /// One of the four forms of a sparse file: a hole, three bytes, a hole, and bytes at the end.
    fn sparse(&mut self) {
        let path = format!("{}f{}", self.parent(), self.rng.u8(..6));
        let hole = self.rng.u64(1..9) * 512;
        let (segments, real) = ([(hole, 512), (hole * 3 + 512, 100)], hole * 3 + 612);
        let data = vec![b'x'; 612];
        let number = |value: u64| value.to_string().into_bytes();
        let listed = |separator: &str| {
            let numbers = segments.iter().flat_map(|(at, bytes)| [at.to_string(), bytes.to_string()]);
            numbers.collect::<Vec<_>>().join(separator)
        };
        let name = self.spelled(&path);
        match self.rng.u8(if self.reader == Reader::Tar { 0..4 } else { 1..4 }) {
            0 => {
                let mut header = self.header(&name, "", b'S', 0o644, data.len() as u64, 0);
                for (at, (offset, bytes)) in (386..).step_by(24).zip(segments) {
                    header[at..at + 11].copy_from_slice(format!("{offset:011o}").as_bytes());
                    header[at + 12..at + 23].copy_from_slice(format!("{bytes:011o}").as_bytes());
                }
                header[483..494].copy_from_slice(format!("{real:011o}").as_bytes());
                self.put_header(&mut header);
                self.pad(&data);
            }
            1 => {
                let mut records =
                    vec![("GNU.sparse.size", number(real)), ("GNU.sparse.numblocks", b"2".to_vec())];
                for (offset, bytes) in segments {
                    records.push(("GNU.sparse.offset", number(offset)));
                    records.push(("GNU.sparse.numbytes", number(bytes)));
                }
                self.write(&name, "", b'0', 0o644, &data, &records);
            }
            2 => {
                let records = [
                    ("GNU.sparse.size", number(real)),
                    ("GNU.sparse.numblocks", b"2".to_vec()),
                    ("GNU.sparse.name", name.clone().into_bytes()),
                    ("GNU.sparse.map", listed(",").into_bytes()),
                ];
                self.write("GNUSparseFile.1/x", "", b'0', 0o644, &data, &records);
            }
            _ => {
                let records = [
                    ("GNU.sparse.major", b"1".to_vec()),
                    ("GNU.sparse.minor", b"0".to_vec()),
                    ("GNU.sparse.name", name.clone().into_bytes()),
                    ("GNU.sparse.realsize", number(real)),
                ];
                let mut stored = format!("2\n{}\n", listed("\n")).into_bytes();
                stored.resize(512, 0);
                stored.extend(data);
                self.write("GNUSparseFile.1/x", "", b'0', 0o644, &stored, &records);
            }
        }
        self.put(path);
    }

    fn global(&mut self) {
        self.records(b'g', &[("comment", b"of all".to_vec()), ("mtime", b"5".to_vec())]);
    }

    fn records(&mut self, kind: u8, records: &[(&str, Vec<u8>)]) {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = (1..5).find(|digits| (rest + digits).to_string().len() == *digits).unwrap();
            text.extend(format!("{} {key}=", rest + digits).as_bytes());
            text.extend(value);
            text.push(b'\n');
        }
        let mut header = self.header("pax", "", kind, 0o644, text.len() as u64, 1);
        self.put_header(&mut header);
        self.pad(&text);
    }

    /// A member with the headers before it that it needs.
    fn write(
        &mut self,
        name: &str,
        link: &str,
        kind: u8,
        mode: u64,
        contents: &[u8],
        records: &[(&str, Vec<u8>)],
    ) {
        let mut records = records.to_vec();
        for (text, key, long) in [(name, "path", b'L'), (link, "linkpath", b'K')] {
            if text.len() <= 100 {
                continue;
            }
            if self.rng.bool() && !records.iter().any(|record| record.0 == "path") {
                records.push((key, text.as_bytes().to_vec()));
            } else {
                let mut header = self.header("././@LongLink", "", long, 0o644, text.len() as u64 + 1, 0);
                self.put_header(&mut header);
                self.pad(&[text.as_bytes(), b"\0"].concat());
            }
        }
        let mut dialect = self.rng.usize(..3);
        if !records.is_empty() {
            self.records(b'x', &records);
            dialect = 1;
        }
        if matches!(kind, b'3' | b'6' | b'7') && dialect == 2 {
            dialect = 0;
        }
        let mut header = self.header(name, link, kind, mode, contents.len() as u64, dialect);
        self.put_header(&mut header);
        self.pad(contents);
    }

    fn header(
        &mut self,
        name: &str,
        link: &str,
        kind: u8,
        mode: u64,
        bytes: u64,
        dialect: usize,
    ) -> [u8; 512] {
        let mut header = [0; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, &name.as_bytes()[..name.len().min(100)]);
        put(157, &link.as_bytes()[..link.len().min(100)]);
        put(257, DIALECTS[dialect]);
        put(156, &[kind]);
        put(100, format!("{mode:07o}").as_bytes());
        for at in [108, 116] {
            let id: u32 = [0, 0, 1000, 65534][self.rng.usize(..4)];
            match self.rng.u8(..6) {
                0 => {
                    put(at, &[0x80]);
                    put(at + 4, &id.to_be_bytes());
                }
                1 => put(at, format!("{id:>6o} ").as_bytes()),
                2 if self.reader == Reader::Umoci => put(at, b"        "),
                _ => put(at, format!("{id:07o}").as_bytes()),
            }
        }
        put(124, format!("{bytes:011o}").as_bytes());
        put(136, format!("{:011o}", self.rng.u32(..)).as_bytes());
        if kind == b'3' {
            put(329, b"0000001\0");
            put(337, b"0000003\0");
        }
        header
    }

    fn put_header(&mut self, header: &mut [u8; 512]) {
        header[148..156].fill(b' ');
        let sum: u32 = if self.rng.u8(..8) == 0 {
            // As SunOS adds them up.
            header.iter().map(|byte| i32::from(byte.cast_signed())).sum::<i32>().cast_unsigned()
        } else {
            header.iter().map(|byte| u32::from(*byte)).sum()
        };
        header[148..155].copy_from_slice(format!("{:06o}\0", sum & 0o777_777).as_bytes());
        self.bytes.extend(*header);
    }

    fn pad(&mut self, contents: &[u8]) {
        self.bytes.extend(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }
}
