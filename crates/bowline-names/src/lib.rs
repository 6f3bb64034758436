//! Every name an operator can search for, once.
//!
//! A name that appears in a log, a metric, an exit status, a configuration file or an
//! environment is a promise: dashboards, alerts and scripts are written against it. So each has
//! one row in one table here, with the words that explain it, and the rest of the program names
//! the row. `cargo xtask tidy` fails on a row that nothing uses.
//!
//! | table | what it names |
//! |---|---|
//! | [`Metric`] | what is counted, with its labels |
//! | [`LimitKey`] | the keys of `[limits]`, and what happens when one is hit |
//! | [`ErrorCode`] | what can go wrong: who is to blame, whether to retry, what to do |
//! | [`DisconnectReason`] | why a session or a socket ended |
//! | [`RecoveryOutcome`] | what became of a client that came back |
//! | [`Exit`] | the exit codes of the binary |
//! | [`EnvVar`] | the environment variables it reads |
//! | [`Header`] | the HTTP headers that are Bowline's own |
//!
//! This crate depends on nothing.
#![warn(missing_docs)]

mod code;
mod disconnect;
mod env;
mod exit;
mod header;
mod limit;
mod metric;
mod recovery;

pub use code::{Blame, ErrorCode};
pub use disconnect::DisconnectReason;
pub use env::EnvVar;
pub use exit::Exit;
pub use header::Header;
pub use limit::{LimitKey, OnHit};
pub use metric::{Kind, Metric};
pub use recovery::RecoveryOutcome;

/// Makes a table: an enum of its rows, the list of all of them, and a method for each column that
/// is named in front of the rows. The help text of a row is also its documentation.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub enum $table:ident;
        columns { $( $(#[$column_meta:meta])* $column:ident: $type:ty, )* }
        $( $row:ident { help: $help:literal, $( $cell:ident: $value:expr ),* $(,)? } )*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $table {
            $( #[doc = $help] $row, )*
        }

        struct Row {
            $( $column: $type, )*
        }

        impl $table {
            /// Every row, in the order of the table.
            pub const ALL: [Self; [ $( Self::$row, )* ].len()] = [ $( Self::$row, )* ];

            $(
                $(#[$column_meta])*
                pub const fn $column(self) -> $type {
                    self.row().$column
                }
            )*

            const fn row(self) -> &'static Row {
                match self {
                    $( Self::$row => &Row { help: $help, $( $cell: $value, )* }, )*
                }
            }
        }
    };
}

use table;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_written_as_their_table_writes_them() {
        check(Metric::ALL.iter().map(|row| row.name()), |c| c.is_ascii_lowercase() || c == '_');
        check(LimitKey::ALL.iter().map(|row| row.name()), |c| c.is_ascii_lowercase() || c == '-');
        check(ErrorCode::ALL.iter().map(|row| row.name()), |c| c.is_ascii_lowercase() || c == '-');
        check(DisconnectReason::ALL.iter().map(|row| row.name()), |c| {
            c.is_ascii_lowercase() || c == ' '
        });
        check(Header::ALL.iter().map(|row| row.name()), |c| c.is_ascii_lowercase() || c == '-');
        check(EnvVar::ALL.iter().map(|row| row.name()), |c| c.is_ascii_uppercase() || c == '_');
    }

    #[test]
    fn every_row_explains_itself() {
        let words = (Metric::ALL.iter().map(|row| row.help()))
            .chain(LimitKey::ALL.iter().map(|row| row.help()))
            .chain(ErrorCode::ALL.iter().map(|row| row.help()))
            .chain(ErrorCode::ALL.iter().map(|row| row.remedy()))
            .chain(DisconnectReason::ALL.iter().map(|row| row.help()))
            .chain(Exit::ALL.iter().map(|row| row.help()))
            .chain(EnvVar::ALL.iter().map(|row| row.help()))
            .chain(Header::ALL.iter().map(|row| row.help()));
        for text in words {
            assert!(text.ends_with('.'), "a whole sentence, please: {text:?}");
        }
    }

    #[test]
    fn a_counter_ends_in_total_and_nothing_else_does() {
        for row in Metric::ALL {
            let counts = row.kind() == Kind::Counter;
            assert_eq!(row.name().ends_with("_total"), counts, "{}", row.name());
            assert!(row.name().starts_with("bowline_"), "{}", row.name());
        }
    }

    #[test]
    fn exit_codes_are_unique() {
        let codes: BTreeSet<u8> = Exit::ALL.iter().map(|row| row.code()).collect();
        assert_eq!(codes.len(), Exit::ALL.len());
    }

    fn check(names: impl Iterator<Item = &'static str>, allowed: impl Fn(char) -> bool) {
        let mut seen = BTreeSet::new();
        for name in names {
            assert!(name.chars().all(&allowed), "{name:?}");
            assert!(seen.insert(name), "{name:?} stands twice");
        }
    }
}
