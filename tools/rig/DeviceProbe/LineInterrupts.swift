import HostSystem
import PCI
import VFIO
import Virtio
import VirtioSpec

/// Lives on INTx alone: each frame is looked for only after its interrupt, and the next interrupt can
/// only come when the one before was acknowledged at the device and let through again at the kernel.
enum LineInterrupts {
    private static let frames = 50

    static func run(
        _ transmitter: NetEnd,
        _ receiver: NetEnd,
        _ function: any HostFunction
    ) throws {
        let status = try interruptStatus(of: function)
        let loop = try EventLoop()
        var count = 0
        var failure: (any Error)?
        try function.watch(on: loop, line: true) { event in
            guard event == .line else {
                failure = ProbeError.ended("\(event)")
                return
            }
            do {
                // Reading the status takes the interrupt back (virtio 1.3 §4.1.4.5).
                _ = try function.readRegister(Int(status.bar), status.offset, .byte)
                count += 1
                try function.setLineMasked(false)
            } catch {
                failure = error
            }
        }
        defer { function.stopWatching() }
        for frame in 1...frames {
            let before = count
            try receiver.start()
            try transmitter.start()
            try receiver.receive(at: nil)
            try transmitter.transmit(from: nil)
            let deadline = Deadline(milliseconds: 2000)
            while count == before, failure == nil, !deadline.hasPassed {
                try loop.turn(limitMilliseconds: 100)
            }
            if let failure { throw failure }
            guard count > before else { throw ProbeError.noInterrupt(frame: frame, count: count) }
            guard receiver.received() != nil else { throw ProbeError.lost("with its interrupt") }
        }
        try transmitter.stop()
        try receiver.stop()
        print("\(frames) frames, each after its interrupt")
    }

    private static func interruptStatus(
        of function: any HostFunction
    ) throws -> VirtioCapability {
        for entry in try CapabilityList(function).entries
        where entry.identifier == VirtioCapability.identifier {
            var bytes: [UInt8] = []
            for at in entry.offset..<min(entry.offset + 16, 256) {
                bytes.append(UInt8(truncatingIfNeeded: try function.readConfiguration(at, .byte)))
            }
            if let found = VirtioCapability(bytes: bytes), found.type == .interruptStatus {
                return found
            }
        }
        throw PCIError.capability("no interrupt status")
    }
}
