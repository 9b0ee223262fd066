use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use crate::eureka::{Application, Applications, Form, Instance, json, xml};

/// The format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) enum Encoding {
    Json,
    Xml,
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) struct Variant {
    pub(in crate::registry) encoding: Encoding,
    pub(in crate::registry) form: Form,
    pub(in crate::registry) gzip: bool,
}

impl Encoding {
    pub(in crate::registry) fn instance(self, instance: &Instance) -> Bytes {
        let mut written = Vec::new();
        match self {
            Self::Json => json::write_instance(instance, &mut written),
            Self::Xml => xml::write_instance(instance, &mut written),
        }
        written.into()
    }
}

impl Variant {
    pub(super) const COUNT: usize = 8;

    pub(super) fn place(self) -> usize {
        usize::from(self.encoding == Encoding::Xml)
            | usize::from(self.form == Form::Compact) << 1
            | usize::from(self.gzip) << 2
    }

    pub(super) fn applications(self, applications: &Applications) -> Bytes {
        let mut written = Vec::new();
        match self.encoding {
            Encoding::Json => json::write_applications(applications, self.form, &mut written),
            Encoding::Xml => xml::write_applications(applications, self.form, &mut written),
        }
        self.finish(written)
    }

    pub(super) fn application(self, application: &Application) -> Bytes {
        let mut written = Vec::new();
        match self.encoding {
            Encoding::Json => json::write_application(application, self.form, &mut written),
            Encoding::Xml => xml::write_application(application, self.form, &mut written),
        }
        self.finish(written)
    }

    fn finish(self, mut written: Vec<u8>) -> Bytes {
        if self.gzip {
            return zipped(&written).into();
        }
        written.shrink_to_fit();
        written.into()
    }
}

fn zipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 16), Compression::default());
    let written = encoder.write_all(plain).and_then(|()| encoder.try_finish());
    debug_assert!(written.is_ok(), "a vector takes all bytes");
    let mut zipped = encoder.finish().unwrap_or_default();
    zipped.shrink_to_fit();
    zipped
}
