use slab::Slab;

/// Buffers frames for multiple streams.
#[derive(Debug)]
pub struct Buffer<T> {
    slab: Slab<Slot<T>>,

    /// The weights of all frames together
    held: usize,
}

/// A sequence of frames in a `Buffer`
#[derive(Debug)]
pub struct Deque {
    indices: Option<Indices>,
}

/// Tracks the head & tail for a sequence of frames in a `Buffer`.
#[derive(Debug, Default, Copy, Clone)]
struct Indices {
    head: usize,
    tail: usize,
}

#[derive(Debug)]
struct Slot<T> {
    value: T,
    next: Option<usize>,

    /// What the frame holds, in bytes
    weight: usize,
}

impl<T> Buffer<T> {
    pub fn new() -> Self {
        Buffer {
            slab: Slab::new(),
            held: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// What all frames hold, in bytes
    pub fn held(&self) -> usize {
        self.held
    }

    fn insert(&mut self, value: T, weight: usize) -> usize {
        self.held += weight;
        self.slab.insert(Slot {
            value,
            next: None,
            weight,
        })
    }
}

impl Deque {
    pub fn new() -> Self {
        Deque { indices: None }
    }

    pub fn is_empty(&self) -> bool {
        self.indices.is_none()
    }

    pub fn push_back<T>(&mut self, buf: &mut Buffer<T>, value: T, weight: usize) {
        let key = buf.insert(value, weight);

        match self.indices {
            Some(ref mut idxs) => {
                buf.slab[idxs.tail].next = Some(key);
                idxs.tail = key;
            }
            None => {
                self.indices = Some(Indices {
                    head: key,
                    tail: key,
                });
            }
        }
    }

    pub fn push_front<T>(&mut self, buf: &mut Buffer<T>, value: T, weight: usize) {
        let key = buf.insert(value, weight);

        match self.indices {
            Some(ref mut idxs) => {
                buf.slab[key].next = Some(idxs.head);
                idxs.head = key;
            }
            None => {
                self.indices = Some(Indices {
                    head: key,
                    tail: key,
                });
            }
        }
    }

    pub fn pop_front<T>(&mut self, buf: &mut Buffer<T>) -> Option<T> {
        self.pop_weighed(buf).map(|(value, _)| value)
    }

    /// The frame at the front, and its weight: it may have to be put back
    pub fn pop_weighed<T>(&mut self, buf: &mut Buffer<T>) -> Option<(T, usize)> {
        match self.indices {
            Some(mut idxs) => {
                let mut slot = buf.slab.remove(idxs.head);
                buf.held -= slot.weight;

                if idxs.head == idxs.tail {
                    assert!(slot.next.is_none());
                    self.indices = None;
                } else {
                    idxs.head = slot.next.take().unwrap();
                    self.indices = Some(idxs);
                }

                Some((slot.value, slot.weight))
            }
            None => None,
        }
    }
}
