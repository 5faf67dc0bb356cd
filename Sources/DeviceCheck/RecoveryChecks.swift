internal import GuestMemory
internal import HostSystem
internal import PCI
internal import Virtio
internal import VirtioSpec

/// DEV-X: what follows a driver's mistake.
struct RecoveryChecks {
    private let device: CheckedDevice

    init(_ device: CheckedDevice) {
        self.device = device
    }

    func run(_ log: CheckLog) {
        for (id, subject, mistake) in [
            ("DEV-X-01", "a head beyond the table", headBeyond),
            ("DEV-X-02", "a chain without end", loop),
            ("DEV-X-03", "an index that jumped", jump),
        ] as [(String, String, (ProbeRing) -> Void)] {
            log.check(id, "\(subject): harm, and recovery") {
                if let why = device.withoutTraffic { return .notApplicable(why) }
                return try recover(from: mistake)
            }
        }
        log.check("DEV-X-04", "a driver that gave up") {
            if let why = device.withoutTraffic { return .notApplicable(why) }
            _ = try device.start()
            let status = try device.transport.status()
            try device.transport.setStatus(status.union(.failed))
            return try traffic("after FAILED")
        }
        log.check("DEV-X-05", "function reset") {
            do throws(PCIError) {
                try device.function.reset()
            } catch {
                if case .notSupported(let what) = error { return .notApplicable(what) }
                throw error
            }
            try device.function.changeCommand { $0.union([.memorySpace, .busMaster]) }
            let status = try device.registers.status()
            guard status == [] else { return .fail("status \(status) after it") }
            if device.withoutTraffic != nil { return .pass("status 0 after it") }
            return try traffic("after it")
        }
        log.check("DEV-X-06", "left in reset") {
            try device.stop()
            let status = try device.registers.status()
            return .expect(status == [], "status \(status)")
        }
    }

    private func recover(from mistake: (ProbeRing) -> Void) throws -> CheckOutcome {
        let ring = try device.start().transmit
        guard try device.send(ring) != nil else { return .fail("no traffic before it") }
        mistake(ring)
        try ring.kick()
        // Time to fall for it. A device may ignore what it was given, or ask for a reset.
        _ = try waits(milliseconds: 100) { try device.transport.status().contains(.needsReset) }
        let status = try device.transport.status()
        var strange: [UInt32] = []
        for _ in 0..<4 * Int(ring.size) {
            guard let used = ring.take() else { break }
            if used.id >= UInt32(ring.size) { strange.append(used.id) }
        }
        guard strange.isEmpty else { return .fail("used ids \(strange) of a ring of \(ring.size)") }
        return try traffic("after status \(status) and a reset")
    }

    private func traffic(_ when: String) throws -> CheckOutcome {
        let ring = try device.start().transmit
        return .expect(try device.send(ring) != nil, "traffic \(when)")
    }

    private func headBeyond(_ ring: ProbeRing) {
        ring.offer([ring.size + 1])
    }

    private func loop(_ ring: ProbeRing) {
        let address = device.frame.deviceAddress
        ring.setDescriptor(1, address, 12, flags: 1, next: 2)
        ring.setDescriptor(2, address, 12, flags: 1, next: 1)
        ring.offer([1])
    }

    private func jump(_ ring: ProbeRing) {
        ring.offer([UInt16](repeating: 0, count: Int(ring.size) + 5))
    }
}
