internal import GuestMemory
internal import HostSystem
internal import PCI
internal import Virtio
internal import VirtioSpec

/// DEV-L: frames that come back, where the wire is a loop.
struct LoopChecks {
    private static let write: UInt16 = 2
    private static let buffers: UInt16 = 8
    private static let bufferLength = 2048
    private static let headerLength = 12
    /// How long a frame may take to come back, in milliseconds.
    private static let patience: UInt64 = 200

    /// The device's own frame as it came back.
    private struct Returned {
        let length: UInt32
        let bytes: [UInt8]
        let interrupts: UInt64
    }

    private let device: CheckedDevice

    init(_ device: CheckedDevice) {
        self.device = device
    }

    func run(_ log: CheckLog) {
        check(log, "DEV-L-01", "a frame comes back unchanged") { returned in
            let sent = device.frame.read(count: device.frame.length).dropFirst(Self.headerLength)
            let wrong = zip(returned.bytes.dropFirst(Self.headerLength), sent).filter { $0 != $1 }
            return .expect(wrong.isEmpty, "\(wrong.count) of \(sent.count) bytes differ")
        }
        check(log, "DEV-L-02", "used length of a received frame") { returned in
            .expect(
                returned.length == UInt32(device.frame.length),
                "\(returned.length) of \(device.frame.length) bytes"
            )
        }
        check(log, "DEV-L-03", "num_buffers without MRG_RXBUF") { returned in
            let count = UInt16(returned.bytes[10]) | UInt16(returned.bytes[11]) << 8
            return .expect(count == 1, "\(count)")
        }
        check(log, "DEV-L-04", "header of a frame without offloads") { returned in
            let (flags, kind) = (returned.bytes[0], returned.bytes[1])
            return .expect(flags & 1 == 0 && kind == 0, "flags \(hex(flags)), gso_type \(kind)")
        }
        check(log, "DEV-L-05", "an interrupt for a received frame", interrupts: true) { returned in
            .expect(returned.interrupts > 0, "\(returned.interrupts) interrupts")
        }
    }

    private func check(
        _ log: CheckLog,
        _ id: String,
        _ subject: String,
        interrupts: Bool = false,
        _ judge: (Returned) -> CheckOutcome
    ) {
        log.check(id, subject) {
            if let why = device.withoutTraffic { return .notApplicable(why) }
            let hasVectors = try device.function.interruptVectorCount > 1
            if interrupts, !hasVectors { return .notApplicable("MSI-X is not available here") }
            guard let returned = try exchange(interrupts: interrupts) else {
                return .notApplicable(
                    "no frame came back within \(Self.patience) ms: the wire is no loop"
                )
            }
            return judge(returned)
        }
    }

    /// Sends the frame with receive buffers posted; `nil` when it does not come back. Frames of
    /// others on the wire, and earlier ones that were long on their way, are passed over.
    private func exchange(interrupts: Bool) throws -> Returned? {
        let event = interrupts ? try device.transport.interrupt(1) : nil
        let rings = try device.start(receiveVector: interrupts ? 1 : nil)
        guard
            let memory = device.arena.allocate(Self.bufferLength * Int(Self.buffers))
        else { throw VirtioError.noRoom("receive buffers") }
        defer { device.arena.release(memory) }
        for head in 0..<Self.buffers {
            rings.receive.setDescriptor(
                head,
                memory.deviceAddress + UInt64(Self.bufferLength) * UInt64(head),
                UInt32(Self.bufferLength),
                flags: Self.write
            )
        }
        event?.drain()
        rings.receive.offer(Array(0..<Self.buffers))
        try rings.receive.kick()
        device.stampFrame()
        guard try device.send(rings.transmit) != nil else { throw CheckProblem.notTaken }
        var found: (length: UInt32, bytes: [UInt8])?
        var failure: CheckProblem?
        _ = try waits(milliseconds: Self.patience) {
            // Not more at once than were given, or a device that never ends would never be timed.
            var turns = Self.buffers
            while turns > 0, found == nil, failure == nil, let used = rings.receive.take() {
                turns -= 1
                guard used.id < UInt32(Self.buffers), used.length <= UInt32(Self.bufferLength)
                else {
                    failure = .usedElement(used.id, used.length)
                    break
                }
                let bytes = memory.read(
                    at: Self.bufferLength * Int(used.id),
                    count: Self.bufferLength
                )
                if isOwn(bytes) {
                    found = (used.length, Array(bytes.prefix(device.frame.length)))
                } else {
                    rings.receive.offer([UInt16(used.id)])
                    try rings.receive.kick()
                }
            }
            return found != nil || failure != nil
        }
        var count: UInt64 = 0
        if let event, found != nil {
            _ = waits(milliseconds: Self.patience) {
                count += event.drain()
                return count > 0
            }
        }
        // In reset the device writes to the buffers no more; only then do they go back.
        try device.stop()
        if let failure { throw failure }
        return found.map { Returned(length: $0.length, bytes: $0.bytes, interrupts: count) }
    }

    /// Addresses, ethertype and stamp are those of the frame that was sent.
    private func isOwn(_ bytes: [UInt8]) -> Bool {
        let length = 14 + CheckedDevice.stampLength
        let sent = device.frame.read(at: Self.headerLength, count: length)
        return Array(bytes[Self.headerLength..<Self.headerLength + length]) == sent
    }
}

/// Why a check could not be carried out.
enum CheckProblem: Error, CustomStringConvertible {
    case notReset
    case notTaken
    case usedElement(UInt32, UInt32)

    var description: String {
        switch self {
        case .notReset: "the device does not come out of reset, see DEV-R-01"
        case .notTaken: "the frame was not taken within a second"
        case .usedElement(let id, let length): "used id \(id) with \(length) bytes"
        }
    }
}
