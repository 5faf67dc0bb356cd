internal import PCI
internal import VirtioSpec

/// Where the structures of a virtio function stand in BAR 0.
struct VirtioBARLayout {
    /// A run of registers with one meaning.
    enum Structure {
        case common, interruptStatus, device, notify, peerNotify, vectors, pendingBits
    }

    static let bar = 0
    static let length: UInt64 = 0x8000
    /// Each structure starts on a page of its own.
    static let page: UInt64 = 0x1000
    static let notifyMultiplier: UInt32 = 4
    /// As many queues as the notify page has addresses.
    static let maximumQueueCount = 1024
    /// BAR of the window onto other machines' memory.
    static let windowBAR = 2
    /// BAR of the second window, where there is one.
    static let secondWindowBAR = 4

    static let common: UInt64 = 0x0000
    static let interruptStatus: UInt64 = 0x1000
    static let device: UInt64 = 0x2000
    static let notify: UInt64 = 0x3000
    static let peerNotify: UInt64 = 0x4000
    static let peerNotifyLength: UInt64 = 0x2000
    static let vectors: UInt64 = 0x6000
    static let pendingBits: UInt64 = 0x7000

    let queueCount: Int
    let configurationLength: Int
    let hasPeerNotify: Bool

    /// The structure that has the byte at `offset`, and the byte's place in it.
    func structure(at offset: UInt64) -> (Structure, at: UInt64)? {
        switch offset {
        case Self.common..<Self.common + UInt64(CommonConfiguration.length):
            (.common, offset - Self.common)
        case Self.interruptStatus: (.interruptStatus, 0)
        case Self.device..<Self.device + UInt64(configurationLength):
            (.device, offset - Self.device)
        case Self.notify..<Self.notify + notifyLength: (.notify, offset - Self.notify)
        case Self.peerNotify..<Self.peerNotify + Self.peerNotifyLength:
            hasPeerNotify ? (.peerNotify, offset - Self.peerNotify) : nil
        case Self.vectors..<Self.vectors + Self.page: (.vectors, offset - Self.vectors)
        case Self.pendingBits..<Self.pendingBits + Self.page:
            (.pendingBits, offset - Self.pendingBits)
        default: nil
        }
    }

    /// True when a run of bytes lies inside one virtio structure; interrupt tables are none.
    func isInsideStructure(_ offset: UInt64, _ length: UInt64) -> Bool {
        let last = offset &+ (length - 1)
        guard last >= offset, let first = structure(at: offset), let end = structure(at: last),
            first.0 == end.0
        else { return false }
        return first.0 != .vectors && first.0 != .pendingBits
    }

    var notifyLength: UInt64 { UInt64(queueCount) * UInt64(Self.notifyMultiplier) }

    /// The capabilities that tell a driver of all this, in list order.
    ///
    /// `windows` are the lengths of the windows, by BAR; shared memory is numbered in that order.
    func capabilities(windows: [(bar: Int, length: UInt64)]) -> [VirtioCapability] {
        var list = [
            VirtioCapability(
                .common,
                offset: Self.common,
                length: UInt64(CommonConfiguration.length)
            ),
            VirtioCapability(
                .notify,
                offset: Self.notify,
                length: notifyLength,
                multiplier: Self.notifyMultiplier
            ),
            VirtioCapability(.interruptStatus, offset: Self.interruptStatus, length: 1),
        ]
        if configurationLength > 0 {
            list.append(
                VirtioCapability(
                    .device,
                    offset: Self.device,
                    length: UInt64(configurationLength)
                )
            )
        }
        list.append(VirtioCapability(.configurationAccess))
        if hasPeerNotify {
            list.append(
                VirtioCapability(
                    .peerNotify,
                    offset: Self.peerNotify,
                    length: Self.peerNotifyLength,
                    multiplier: Self.notifyMultiplier
                )
            )
        }
        for (index, window) in windows.enumerated() {
            list.append(
                VirtioCapability(
                    .sharedMemory,
                    bar: UInt8(window.bar),
                    id: UInt8(index),
                    length: window.length
                )
            )
        }
        return list
    }
}
