//! Columns of a table, told once: their order, names, types and documentation.

/// Makes an enum of a table's columns with their names, types and documentation.
macro_rules! columns {
    ($name:ident { $($variant:ident $text:literal $kind:ident $about:literal;)* }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $name { $($variant),* }

        impl $name {
            pub(super) const INFO: &'static [$crate::sql::SqlViewColumn] = &[$(
                $crate::sql::SqlViewColumn {
                    name: $text,
                    kind: $crate::sql::SqlKind::$kind,
                    about: $about,
                }
            ),*];

            /// The column at a place.
            pub(super) fn at(place: usize) -> Option<Self> {
                const ALL: &[$name] = &[$($name::$variant),*];
                ALL.get(place).copied()
            }
        }
    };
}

pub(super) use columns;
