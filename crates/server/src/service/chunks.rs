// SPDX-License-Identifier: Apache-2.0
//! The Stream variants of the lists: what one message could not carry, in several.
//!
//! A gRPC message has a limit (the kubelet's is 16 MiB), and a node with thousands of containers whose pods have long
//! annotations reaches it. A list is cut where a chunk has enough items or enough bytes; an item is never cut. A list
//! without items is a stream without messages. The list is a snapshot taken when the stream begins.

use prost::Message;
use tonic::codegen::BoxStream;
use tonic::{Response, Status};

use super::answer;
use crate::error::Result;

/// Most items of a chunk: the kubelet handles one chunk while the next is on its way.
const MOST_ITEMS: usize = 1000;
/// Bytes at which a chunk is full: far below every client's limit, though its last item may be a large one.
const MOST_BYTES: usize = 1 << 20;

/// A list's answer as a stream of messages, each made of some of the items.
pub(super) fn stream<T, M>(
    operation: &'static str,
    items: Result<Vec<T>>,
    message: fn(Vec<T>) -> M,
) -> std::result::Result<Response<BoxStream<M>>, Status>
where
    T: Message + 'static,
    M: Send + 'static,
{
    let chunks = items.map(|items| Chunks { items: items.into_iter() });
    answer(operation, chunks.map(|chunks| boxed(chunks.map(message))))
}

fn boxed<M: Send + 'static>(messages: impl Iterator<Item = M> + Send + 'static) -> BoxStream<M> {
    Box::pin(tokio_stream::iter(messages.map(Ok)))
}

/// Cuts as it goes: what waits for a slow reader is the items, not a second copy of them.
#[derive(Debug)]
struct Chunks<T> {
    items: std::vec::IntoIter<T>,
}

// === impl Chunks ===

impl<T: Message> Iterator for Chunks<T> {
    type Item = Vec<T>;

    fn next(&mut self) -> Option<Vec<T>> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while chunk.len() < MOST_ITEMS && bytes < MOST_BYTES {
            let Some(item) = self.items.next() else { break };
            bytes += item.encoded_len();
            chunk.push(item);
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use hull_cri_api::v1::Container;
    use proptest::prelude::*;

    use super::*;

    fn container(bytes: usize) -> Container {
        Container { id: "x".repeat(bytes), ..Container::default() }
    }

    #[test]
    fn nothing_is_no_message() {
        assert_eq!(Chunks { items: Vec::<Container>::new().into_iter() }.count(), 0);
    }

    #[test]
    fn an_item_larger_than_a_chunk_goes_alone() {
        let items = vec![container(MOST_BYTES * 2), container(1), container(MOST_BYTES * 2)];
        let sizes: Vec<usize> = Chunks { items: items.into_iter() }.map(|chunk| chunk.len()).collect();
        assert_eq!(sizes, [1, 2]);
    }

    proptest! {
        #[test]
        fn chunks_are_the_list_in_order_and_bounded(
            sizes in prop::collection::vec(prop_oneof![0..200_usize, 0..MOST_BYTES], 0..60),
            small in 0..2500_usize,
        ) {
            let mut items: Vec<Container> = sizes.iter().map(|size| container(*size)).collect();
            items.extend((0..small).map(|n| Container { id: n.to_string(), ..Container::default() }));
            let chunks: Vec<Vec<Container>> = Chunks { items: items.clone().into_iter() }.collect();
            for chunk in &chunks {
                let but_last: usize = chunk.iter().rev().skip(1).map(Message::encoded_len).sum();
                prop_assert!(!chunk.is_empty() && chunk.len() <= MOST_ITEMS && but_last < MOST_BYTES);
            }
            prop_assert_eq!(chunks.concat(), items);
        }
    }
}
