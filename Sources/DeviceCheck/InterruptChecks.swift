internal import GuestMemory
internal import HostSystem
internal import PCI
internal import Virtio
internal import VirtioSpec

/// DEV-I: MSI-X vectors, and real interrupts.
struct InterruptChecks {
    private static let noInterrupt: UInt16 = 1
    /// How long an interrupt that must not come is waited for, in milliseconds.
    private static let silence: UInt64 = 50

    private let device: CheckedDevice

    init(_ device: CheckedDevice) {
        self.device = device
    }

    func run(_ log: CheckLog) {
        binding(log)
        delivery(log)
    }

    private func check(
        _ log: CheckLog,
        _ id: String,
        _ subject: String,
        needsTraffic: Bool = true,
        _ body: () throws -> CheckOutcome
    ) {
        log.check(id, subject) {
            guard try device.function.interruptVectorCount > 0 else {
                return .notApplicable("MSI-X is not available here")
            }
            if needsTraffic, let why = device.withoutTraffic { return .notApplicable(why) }
            return try body()
        }
    }

    private func binding(_ log: CheckLog) {
        let registers = device.registers
        check(log, "DEV-I-01", "vector of configuration changes", needsTraffic: false) {
            try device.stop()
            _ = try device.transport.interrupt(0)
            try registers.write(.configurationVector, 0)
            let bound = try registers.read(.configurationVector)
            try registers.write(.configurationVector, UInt32(CommonConfiguration.noVector))
            let free = try registers.read(.configurationVector)
            return .expect(
                bound == 0 && free == UInt32(CommonConfiguration.noVector),
                "0 reads \(hex(bound)), NO_VECTOR reads \(hex(free))"
            )
        }
        check(log, "DEV-I-02", "vector of a queue", needsTraffic: false) {
            let last = UInt32(try device.function.interruptVectorCount - 1)
            _ = try device.transport.interrupt(UInt16(truncatingIfNeeded: last))
            guard let queue = try registers.prepareQueue() else {
                return .fail("no queue has a size")
            }
            try registers.write(.queueVector, last)
            let bound = try registers.read(.queueVector)
            try registers.write(.queueVector, UInt32(CommonConfiguration.noVector))
            let free = try registers.read(.queueVector)
            return .expect(
                bound == last && free == UInt32(CommonConfiguration.noVector),
                "queue \(queue): \(last) reads \(hex(bound)), NO_VECTOR reads \(hex(free))"
            )
        }
        check(log, "DEV-I-03", "vector beyond the table", needsTraffic: false) {
            let count = try device.function.interruptVectorCount
            guard count < 0x7ff else { return .notApplicable("\(count) vectors") }
            guard try registers.prepareQueue() != nil else {
                return .fail("no queue has a size")
            }
            try registers.write(.queueVector, UInt32(count))
            let seen = try registers.read(.queueVector)
            return .expect(
                seen == UInt32(CommonConfiguration.noVector),
                "\(count) of \(count) reads \(hex(seen))"
            )
        }
    }

    private func delivery(_ log: CheckLog) {
        check(log, "DEV-I-04", "an interrupt for a used buffer") {
            let event = try device.transport.interrupt(1)
            let ring = try device.start(transmitVector: 1).transmit
            event.drain()
            guard try device.send(ring) != nil else { return .fail("the frame was not taken") }
            var count: UInt64 = 0
            let came = waits(milliseconds: 1000) {
                count += event.drain()
                return count > 0
            }
            return .expect(came, "\(count) interrupts within a second")
        }
        check(log, "DEV-I-05", "an interrupt on its own vector only") {
            let other = try device.transport.interrupt(0)
            let event = try device.transport.interrupt(1)
            let ring = try device.start(transmitVector: 1).transmit
            other.drain()
            event.drain()
            guard try device.send(ring) != nil else { return .fail("the frame was not taken") }
            _ = waits(milliseconds: Self.silence) { false }
            let (mine, others) = (event.drain(), other.drain())
            return .expect(mine > 0 && others == 0, "vector 1: \(mine), vector 0: \(others)")
        }
        check(log, "DEV-I-06", "a queue without a vector") {
            let event = try device.transport.interrupt(1)
            let ring = try device.start(transmitVector: nil).transmit
            event.drain()
            guard try device.send(ring) != nil else { return .fail("the frame was not taken") }
            _ = waits(milliseconds: Self.silence) { false }
            let count = event.drain()
            return .expect(count == 0, "\(count) interrupts")
        }
        check(log, "DEV-I-07", "NO_INTERRUPT") {
            let event = try device.transport.interrupt(1)
            let ring = try device.start(transmitVector: 1).transmit
            ring.setFlags(Self.noInterrupt)
            event.drain()
            guard try device.send(ring) != nil else { return .fail("the frame was not taken") }
            _ = waits(milliseconds: Self.silence) { false }
            let count = event.drain()
            return .expect(count == 0, "\(count) interrupts")
        }
        check(log, "DEV-I-08", "used_event") {
            let event = try device.transport.interrupt(1)
            let (features, _, ring) = try device.start(wanted: .eventIndex, transmitVector: 1)
            guard features.contains(.eventIndex) else { return .notApplicable("not offered") }
            // Devices may announce their first buffer whatever was asked. Of the three behind it
            // only the last was asked for.
            guard try device.send(ring) != nil else { return .fail("no frame was taken") }
            _ = waits(milliseconds: Self.silence) { false }
            ring.setUsedEvent(3)
            event.drain()
            var counts: [UInt64] = []
            for head in UInt16(1)...3 {
                guard try device.send(ring, head: head) != nil else {
                    return .fail("frame \(head) was not taken")
                }
                _ = waits(milliseconds: Self.silence) { false }
                counts.append(event.drain())
            }
            return .expect(
                counts[0] == 0 && counts[1] == 0 && counts[2] > 0,
                "interrupts for buffers 2 to 4: \(counts)"
            )
        }
    }
}
