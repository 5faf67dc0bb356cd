internal import VirtioSpec

/// DEV-S: the status byte and the negotiation of features.
struct NegotiationChecks {
    private let registers: DeviceRegisters

    init(_ registers: DeviceRegisters) {
        self.registers = registers
    }

    func run(_ log: CheckLog) {
        log.check("DEV-S-01", "VERSION_1") {
            let offered = try registers.offeredFeatures()
            return .expect(offered.contains(.version1), "offered \(hex(offered.rawValue))")
        }
        status(log)
        acceptance(log)
        refusal(log)
        end(log)
    }

    private func status(_ log: CheckLog) {
        for (id, status) in [
            ("DEV-S-02", DeviceStatus.acknowledge), ("DEV-S-03", [.acknowledge, .driver]),
        ] {
            log.check(id, "status \(status)") {
                _ = try registers.reset()
                try registers.setStatus(status)
                let seen = try registers.status()
                return .expect(seen == status, "reads \(seen)")
            }
        }
    }

    private func acceptance(_ log: CheckLog) {
        log.check("DEV-S-04", "least set of features") {
            let features = try registers.leastFeatures()
            let kept = try registers.negotiate(features)
            return .expect(kept, "\(hex(features.rawValue)), FEATURES_OK \(kept ? "kept" : "lost")")
        }
        log.check("DEV-S-05", "all offered features") {
            let features = try registers.offeredFeatures()
            let kept = try registers.negotiate(features)
            return .expect(kept, "\(hex(features.rawValue)), FEATURES_OK \(kept ? "kept" : "lost")")
        }
        log.check("DEV-S-06", "the driver's features read back") {
            let features = try registers.leastFeatures()
            _ = try registers.negotiate(features)
            let seen = try registers.driverFeatures()
            return .expect(
                seen == features,
                "wrote \(hex(features.rawValue)), reads \(hex(seen.rawValue))"
            )
        }
    }

    private func refusal(_ log: CheckLog) {
        log.check("DEV-S-07", "a feature that is not offered") {
            let offered = try registers.offeredFeatures()
            // Reserved bits first: no later standard gives 24 to 27 a meaning for a driver.
            let order = [27, 26, 25, 24] + Array(42..<64) + Array(0..<24)
            guard let bit = order.first(where: { !offered.contains(FeatureBits(bit: UInt8($0))) })
            else { return .notApplicable("all 64 are offered") }
            let extra = FeatureBits(bit: UInt8(bit))
            let kept = try registers.negotiate(try registers.leastFeatures().union(extra))
            let shown = try registers.driverFeatures().contains(extra)
            return .expect(
                !kept || !shown,
                "bit \(bit): FEATURES_OK \(kept ? "kept" : "refused"), the bit"
                    + " \(shown ? "reads back" : "does not read back")"
            )
        }
        log.check("DEV-S-08", "ACCESS_PLATFORM offered and not taken") {
            let offered = try registers.offeredFeatures()
            guard offered.contains(.accessPlatform) else {
                return .notApplicable("it is not offered")
            }
            let kept = try registers.negotiate(offered.intersection(.version1))
            // Either is allowed, but a reader who sets up DMA wants to know.
            return kept
                ? .notApplicable("the device goes on without it, which it may")
                : .pass("FEATURES_OK refused")
        }
        log.check("DEV-S-09", "works again after a refusal") {
            let kept = try registers.negotiate(try registers.leastFeatures())
            return .expect(kept, "FEATURES_OK \(kept ? "kept" : "lost")")
        }
    }

    private func end(_ log: CheckLog) {
        log.check("DEV-S-10", "DRIVER_OK without queues") {
            guard try registers.negotiate(try registers.leastFeatures()) else {
                return .fail("FEATURES_OK is lost")
            }
            let wanted: DeviceStatus = [.acknowledge, .driver, .featuresOK, .driverOK]
            try registers.setStatus(wanted)
            let seen = try registers.status()
            return .expect(seen == wanted, "reads \(seen)")
        }
        log.check("DEV-S-11", "reset from DRIVER_OK") {
            guard let time = try registers.reset() else {
                return .fail("status is \(try registers.status())")
            }
            return .pass("status 0 after \(time) us")
        }
        log.check("DEV-S-12", "FAILED") {
            try registers.setStatus([.acknowledge, .failed])
            let seen = try registers.status()
            return .expect(seen.contains(.failed), "reads \(seen)")
        }
        log.check("DEV-S-13", "reset from FAILED") {
            guard let time = try registers.reset() else {
                return .fail("status is \(try registers.status())")
            }
            return .pass("status 0 after \(time) us")
        }
    }
}
