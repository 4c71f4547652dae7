//! The list of targets: a name, the function, its seeds. One line each; the test comes with it.

use crate::Target;

macro_rules! targets {
    ($($name:ident: $run:path, $seeds:path;)*) => {
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $run, seeds: $seeds },)*
        ];

        #[cfg(test)]
        mod briefly {
            $(
                #[test]
                fn $name() {
                    crate::driver::briefly(stringify!($name));
                }
            )*
        }
    };
}

targets! {
    wal_segment: trilith_wal::fuzzing::segment, trilith_wal::fuzzing::seeds;
}
