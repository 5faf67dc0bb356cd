internal import PCI

/// The capabilities behind a VFIO answer: each begins with its id, a version, and the offset of the
/// next in the answer, 0 at the end (`struct vfio_info_cap_header`).
struct VFIOCapabilityChain {
    struct Entry: Equatable {
        let identifier: UInt16
        let version: UInt16
        let offset: Int
    }

    let entries: [Entry]

    /// Walks the chain from `first`; `fixed` bytes of the answer come before any capability.
    ///
    /// The kernel only ever appends, so that offsets grow: one that does not is a loop. A chain that
    /// leaves the answer is as wrong; both are refused, for nothing else the answer says can be
    /// believed then (HI-H28).
    init(_ answer: AnswerBytes, first: UInt32, fixed: Int, of what: String) throws(PCIError) {
        var entries: [Entry] = []
        var least = fixed
        var next = Int(first)
        while next != 0 {
            guard next >= least, next % 4 == 0, let identifier = answer.field16(next),
                let version = answer.field16(next + 2), let following = answer.field32(next + 4)
            else { throw Self.refusal("a capability of \(what) at \(next) is out of place") }
            entries.append(Entry(identifier: identifier, version: version, offset: next))
            least = next + VFIOLayout.capabilityLength
            next = Int(following)
        }
        self.entries = entries
    }

    /// Offset of the first capability of that kind.
    func offset(of identifier: UInt16) -> Int? {
        entries.first { $0.identifier == identifier }?.offset
    }

    /// The pairs of 64-bit numbers of a capability that starts with their count.
    static func pairs(
        _ answer: AnswerBytes,
        at offset: Int,
        of what: String
    ) throws(PCIError) -> [(UInt64, UInt64)] {
        let start = offset + VFIOLayout.capabilityLength
        guard let claimed = answer.field32(start),
            Int(claimed) <= max(0, answer.bytes.count - start - 8) / 16
        else { throw refusal("a list of \(what) is longer than the answer") }
        var pairs: [(UInt64, UInt64)] = []
        for index in 0..<Int(claimed) {
            let at = start + 8 + 16 * index
            guard let first = answer.field64(at), let second = answer.field64(at + 8) else {
                throw refusal("a list of \(what) is longer than the answer")
            }
            pairs.append((first, second))
        }
        return pairs
    }

    /// What the kernel answered makes no sense.
    static func refusal(_ detail: String) -> PCIError {
        .refused(
            HostRefusal("vfio/answer", detail, remedy: "report it with the version of the kernel")
        )
    }
}
