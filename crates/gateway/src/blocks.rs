//! A stream of server-sent events cut into blocks, each up to and with its blank line, to the byte:
//! what is passed on is what came. How much may come is for who brings it to say.

/// Room that is kept for the next block, bytes; what a larger one took is given back.
const KEPT_ROOM_BYTES: usize = 64 << 10;

/// Cuts bytes, which come in arbitrary pieces, into blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    held: Vec<u8>,
    /// Bytes of `held` that have been looked at.
    seen: usize,
    /// Nothing has come since the line before ended.
    is_line_empty: bool,
    is_after_cr: bool,
}

impl Blocks {
    /// Takes bytes in; answers the blocks that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.held.extend_from_slice(bytes);
        let (mut blocks, mut start) = (Vec::new(), 0);
        while self.seen < self.held.len() {
            let byte = self.held[self.seen];
            self.seen += 1;
            let is_second = std::mem::take(&mut self.is_after_cr) && byte == b'\n';
            if is_second {
                // The other half of an end of line that was taken already.
                continue;
            }
            if !matches!(byte, b'\n' | b'\r') {
                self.is_line_empty = false;
                continue;
            }
            self.is_after_cr = byte == b'\r';
            if !std::mem::replace(&mut self.is_line_empty, true) {
                continue;
            }
            let mut end = self.seen;
            if self.is_after_cr && self.held.get(end) == Some(&b'\n') {
                end += 1;
                self.is_after_cr = false;
            }
            // Each with no more room than it needs: many may wait for a slow client.
            blocks.push(self.held[start..end].to_vec());
            (start, self.seen) = (end, end);
        }
        self.held.drain(..start);
        self.seen -= start;
        if start > 0 {
            self.held.shrink_to(KEPT_ROOM_BYTES);
        }
        blocks
    }

    /// What has come since the last whole block.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.seen = 0;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use throughline_llm::SseParser;

    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let mut blocks = Blocks::default();
        let mut all: Vec<Vec<u8>> = pieces.iter().flat_map(|piece| blocks.push(piece)).collect();
        all.push(blocks.rest());
        all.into_iter().map(|block| String::from_utf8(block).unwrap()).collect()
    }

    #[test]
    fn blocks_end_with_their_blank_line() {
        let expected = ["data: a\n\n", ": x\n\n", "event: b\ndata: c\n\n", "data: half\n"];
        assert_eq!(cut(&[expected.concat().as_bytes()]), expected);
        assert_eq!(
            cut(&[b"data: a\r\n", b"\r\ndata: b\r\r"]),
            ["data: a\r\n\r\n", "data: b\r\r", ""]
        );
    }

    /// A block of megabytes comes in thousands of pieces: no byte of it is looked at twice.
    #[test]
    fn a_long_block_is_looked_through_once() {
        let mut blocks = Blocks::default();
        let piece = [b'x'; 1 << 10];
        for number in 1..=4 << 10 {
            assert_eq!(blocks.push(&piece), Vec::<Vec<u8>>::new());
            assert_eq!(blocks.seen, number * piece.len());
        }
        assert_eq!(blocks.push(b"\n\n")[0].len(), (4 << 20) + 2);
        assert!(blocks.held.capacity() <= KEPT_ROOM_BYTES);
    }

    proptest! {
        /// However bytes come, none is lost or changed, and the events of the blocks are those of
        /// the whole.
        #[test]
        fn nothing_is_lost(text in "(data: [ab]{0,3}|: |event: x|\n|\r|\r\n){0,12}", cuts in prop::collection::vec(1usize..6, 0..20)) {
            let mut blocks = Blocks::default();
            let (mut all, mut left) = (Vec::new(), text.as_bytes());
            for at in cuts.into_iter().chain([usize::MAX]) {
                let (piece, rest) = left.split_at(at.min(left.len()));
                all.extend(blocks.push(piece));
                left = rest;
            }
            all.push(blocks.rest());
            prop_assert_eq!(all.concat(), text.as_bytes());
            let (mut whole, mut cut) = (Vec::new(), Vec::new());
            SseParser::new().push(text.as_bytes(), &mut whole).unwrap();
            let mut parser = SseParser::new();
            for block in &all {
                parser.push(block, &mut cut).unwrap();
                prop_assert!(cut.len() <= whole.len());
            }
            prop_assert_eq!(cut, whole);
        }
    }
}
