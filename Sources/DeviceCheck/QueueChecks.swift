internal import GuestMemory
internal import HostSystem
internal import Virtio
internal import VirtioSpec

/// DEV-Q: queues under traffic.
struct QueueChecks {
    private static let next: UInt16 = 1
    private static let indirect: UInt16 = 4
    /// Frames that carry the 16-bit index once around.
    private static let wrap = 65_600

    private let device: CheckedDevice

    init(_ device: CheckedDevice) {
        self.device = device
    }

    func run(_ log: CheckLog) {
        single(log)
        framing(log)
        amount(log)
        optional(log)
    }

    private func check(
        _ log: CheckLog,
        _ id: String,
        _ subject: String,
        _ body: () throws -> CheckOutcome
    ) {
        log.check(id, subject) {
            if let why = device.withoutTraffic { return .notApplicable(why) }
            return try body()
        }
    }

    private func single(_ log: CheckLog) {
        check(log, "DEV-Q-01", "queues 0 and 1 enabled") {
            let started = try device.start()
            return .pass("features \(hex(started.features.rawValue))")
        }
        check(log, "DEV-Q-02", "no used element without a buffer") {
            let ring = try device.start().transmit
            try ring.kick()
            _ = waits(milliseconds: 20) { ring.usedIndex != 0 }
            return .expect(ring.usedIndex == 0, "used index \(ring.usedIndex)")
        }
        check(log, "DEV-Q-03", "a frame is taken") {
            let ring = try device.start().transmit
            guard try device.send(ring) != nil else {
                device.takesNothing = true
                return .fail(
                    "not within a second: the device does not work, or nothing at the other end of"
                        + " its wire takes frames; drive that end too"
                )
            }
            return .pass("one used element")
        }
        check(log, "DEV-Q-04", "used id") {
            let ring = try device.start().transmit
            guard let used = try device.send(ring, head: 7) else {
                return .fail("not within a second")
            }
            return .expect(used.id == 7, "head 7, used id \(used.id)")
        }
        check(log, "DEV-Q-05", "used length of a buffer to read") {
            let ring = try device.start().transmit
            guard let used = try device.send(ring) else { return .fail("not within a second") }
            return .expect(used.length == 0, "\(used.length) bytes written")
        }
    }

    private func framing(_ log: CheckLog) {
        let frame = device.frame
        check(log, "DEV-Q-06", "header and frame in descriptors of their own") {
            let ring = try device.start().transmit
            ring.setDescriptor(0, frame.deviceAddress, 12, flags: Self.next, next: 1)
            ring.setDescriptor(1, frame.deviceAddress + 12, UInt32(frame.length - 12))
            ring.offer([0])
            try ring.kick()
            return .expect(ring.take(1).first?.id == 0, "used index \(ring.usedIndex)")
        }
        check(log, "DEV-Q-07", "a chain that runs backwards through the table") {
            let ring = try device.start().transmit
            ring.setDescriptor(9, frame.deviceAddress, 20, flags: Self.next, next: 4)
            ring.setDescriptor(4, frame.deviceAddress + 20, 20, flags: Self.next, next: 1)
            ring.setDescriptor(1, frame.deviceAddress + 40, UInt32(frame.length - 40))
            ring.offer([9])
            try ring.kick()
            return .expect(ring.take(1).first?.id == 9, "used index \(ring.usedIndex)")
        }
    }

    private func amount(_ log: CheckLog) {
        check(log, "DEV-Q-08", "a full ring shown at once") {
            let ring = try device.start().transmit
            let sent = try batches(ring, frames: Int(ring.size), limit: 1000)
            return .expect(sent == Int(ring.size), "\(sent) of \(ring.size)")
        }
        check(log, "DEV-Q-09", "every head comes back once") {
            let ring = try device.start().transmit
            offerAll(ring)
            try ring.kick()
            let ids = ring.take(Int(ring.size)).map { Int($0.id) }.sorted()
            return .expect(ids == Array(0..<Int(ring.size)), "ids \(ids)")
        }
        check(log, "DEV-Q-10", "five times around the ring") {
            let ring = try device.start().transmit
            let count = 5 * Int(ring.size)
            let sent = try batches(ring, frames: count, limit: 2000)
            return .expect(sent == count, "\(sent) of \(count)")
        }
        check(log, "DEV-Q-11", "the index wraps at 65536") {
            let ring = try device.start().transmit
            let sent = try batches(ring, frames: Self.wrap, limit: 60_000)
            return .expect(sent >= Self.wrap, "\(sent) frames, used index \(ring.usedIndex)")
        }
    }

    private func offerAll(_ ring: ProbeRing) {
        for head in 0..<ring.size {
            ring.setDescriptor(head, device.frame.deviceAddress, UInt32(device.frame.length))
        }
        ring.offer(Array(0..<ring.size))
    }

    /// Sends full rings until `frames` have come back; how many did, within `limit` milliseconds.
    private func batches(_ ring: ProbeRing, frames: Int, limit: UInt64) throws -> Int {
        var sent = 0
        let inTime = try waits(milliseconds: limit) {
            offerAll(ring)
            try ring.kick()
            let taken = ring.take(Int(ring.size)).count
            sent += taken
            return sent >= frames || taken < Int(ring.size)
        }
        return inTime ? sent : min(sent, frames - 1)
    }

    private func optional(_ log: CheckLog) {
        check(log, "DEV-Q-12", "indirect descriptors") {
            let (features, _, ring) = try device.start(wanted: .indirectDescriptors)
            guard features.contains(.indirectDescriptors) else {
                return .notApplicable("not offered")
            }
            guard let table = device.arena.allocate(32, alignment: 16) else {
                throw VirtioError.noRoom("an indirect table")
            }
            defer { device.arena.release(table) }
            let address = device.frame.deviceAddress
            let rest = UInt32(device.frame.length - 12)
            table.write(ProbeRing.descriptor(address, 12, flags: Self.next, next: 1))
            table.write(ProbeRing.descriptor(address + 12, rest), at: 16)
            ring.setDescriptor(3, table.deviceAddress, 32, flags: Self.indirect)
            ring.offer([3])
            try ring.kick()
            let used = ring.take(1).first
            try device.stop()
            return .expect(used?.id == 3, used.map { "used id \($0.id)" } ?? "not within a second")
        }
        check(log, "DEV-Q-13", "a queue reset by itself") {
            let (features, _, ring) = try device.start(wanted: .ringReset)
            guard features.contains(.ringReset) else { return .notApplicable("not offered") }
            guard try device.send(ring) != nil else { return .fail("no traffic before it") }
            try device.transport.resetQueue(ring.queue)
            ring.rewind()
            try device.transport.enableQueue(ring.queue, ring.configuration, vector: nil)
            return .expect(try device.send(ring) != nil, "traffic after it")
        }
    }
}
