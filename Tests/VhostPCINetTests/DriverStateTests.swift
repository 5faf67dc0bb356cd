import Testing
import VirtioSpec

@testable import VhostPCINet

@Suite struct DriverStateTests {
    // MARK: connect

    @Test func `VPN-M-03, VPN-M-06: the window is mapped and acknowledged, then ON connects`() {
        var rig = Rig()
        rig.feed(memory(generation: 4))
        #expect(rig.actions == [.map(table(generation: 4))])
        rig.feed(.mapped)
        #expect(rig.actions.contains(.acknowledge(generation: 4)))
        rig.feed(queues(0..<2, of: 2))
        #expect(!rig.hasConnected)
        rig.feed(on)
        #expect(rig.hasConnected)
        #expect(rig.refusals.isEmpty)
    }

    @Test func `queue information may come in several parts, in any order`() {
        var rig = Rig()
        rig.feed(memory(), .mapped, queues(2..<4, of: 4), queues(0..<2, of: 4), on)
        #expect(rig.hasConnected)
    }

    @Test func `a newer table before ON takes the place of the older`() {
        var rig = Rig()
        rig.feed(memory(generation: 1), .mapped, queues(0..<2, of: 2))
        rig.feed(memory(generation: 2), .mapped)
        rig.feed(on)
        #expect(!rig.hasConnected)
        rig.feed(queues(0..<2, of: 2), on)
        #expect(
            rig.actions.contains(
                .connect(table(generation: 2), entries(0..<2), [.version1, .eventIndex])
            )
        )
    }

    // MARK: OFF

    @Test func `VPN-M-04: on OFF threads let go first, then the answer goes out`() {
        var rig = Rig.connected()
        rig.feed(off)
        #expect(
            rig.actions == [.quiesce, .release, .sendOff, .report(.disconnected)]
        )
        rig.feed(memory(), .mapped, queues(0..<2, of: 2), on)
        #expect(rig.hasConnected)
    }

    @Test func `an OFF before ON is answered and leaves nothing behind`() {
        var rig = Rig()
        rig.feed(memory(), .mapped, off)
        #expect(rig.actions.contains(.sendOff))
        #expect(!rig.actions.contains(.quiesce))
        rig.feed(on)
        #expect(!rig.hasConnected)
    }

    @Test func `VPN-M-05: stop asks for OFF and ends with the device's`() {
        var rig = Rig.connected()
        rig.feed(.stop)
        #expect(rig.actions == [.quiesce, .release, .sendOff, .startTimer])
        #expect(rig.state.phase == .stopping)
        rig.feed(memory(), on, queues(0..<2, of: 2))
        #expect(rig.state.phase == .stopping)
        rig.feed(off)
        #expect(rig.state.phase == .stopped)
        #expect(rig.actions.contains(.cancelTimer))
    }

    @Test func `HI-G8: an OFF that never comes ends with the deadline, and is told`() {
        var rig = Rig.connected()
        rig.feed(.stop, .offTimeout)
        #expect(rig.state.phase == .stopped)
        #expect(rig.refusals == ["vpci/off-timeout"])
    }

    @Test func `stop with nothing known waits for nothing`() {
        var rig = Rig()
        rig.feed(.stop)
        #expect(rig.state.phase == .stopped)
        #expect(!rig.actions.contains(.sendOff))
    }

    // MARK: dead and broken devices

    @Test func `VPN-M-17: a device that asks for a reset gets it after every thread let go`() {
        var rig = Rig.connected()
        rig.feed(.needsReset)
        #expect(rig.actions == [.quiesce, .release, .reset, .report(.needsReset)])
        rig.feed(on, off, memory())
        #expect(rig.state.phase == .stopped)
    }

    @Test func `VPN-M-18: a dead device stops everything, keeps the window, waits for nothing`() {
        var rig = Rig.connected()
        rig.feed(.deviceGone)
        #expect(rig.actions == [.quiesce, .cancelTimer, .report(.deviceGone)])
        rig.forget()
        rig.feed(.stop, .needsReset, .deviceGone, off, on, memory())
        #expect(rig.actions.isEmpty)
    }

    @Test func `VPN-M-18: a device that dies while OFF is waited for ends the wait`() {
        var rig = Rig.connected()
        rig.feed(.stop, .deviceGone)
        #expect(rig.state.phase == .dead)
        #expect(rig.actions.contains(.cancelTimer))
    }

    // MARK: hostile devices

    @Test(arguments: [[], [0], [0, 7], [1, 9], [4, 0], [255, 255]] as [[UInt8]])
    func `HI-G1: a message that is short or unknown is ignored in every state`(frame: [UInt8]) {
        for var rig in Rig.everyState() {
            let before = rig.state
            rig.feed(.frame(frame))
            #expect(rig.state == before)
            #expect(rig.refusals.allSatisfy { $0 == "vpci/unknown" })
        }
    }

    @Test func `HI-G2: queue information and ON without memory information are refused`() {
        var rig = Rig()
        rig.feed(queues(0..<2, of: 2), on)
        #expect(rig.refusals == ["vpci/order", "vpci/order"])
        #expect(rig.state.phase == .idle)
    }

    @Test func `HI-G2: information while ON is refused and the connection stays as it was`() {
        var rig = Rig.connected()
        let before = rig.state
        rig.feed(memory(generation: 9), queues(0..<2, of: 2), on)
        #expect(rig.refusals == ["vpci/order", "vpci/order", "vpci/order"])
        #expect(rig.state == before)
    }

    @Test func `HI-G2: OFF again changes nothing and is not answered again`() {
        var rig = Rig.connected()
        rig.feed(off)
        rig.forget()
        rig.feed(off, off)
        #expect(rig.refusals == ["vpci/order", "vpci/order"])
        #expect(!rig.actions.contains(.sendOff))
    }

    @Test func `HI-G2: ON before the window is mapped is refused`() {
        var rig = Rig()
        rig.feed(memory(), queues(0..<2, of: 2), on)
        #expect(rig.refusals == ["vpci/order", "vpci/order"])
    }

    @Test(arguments: [6, 255, UInt64.max])
    func `HI-G3: memory information for a BAR that cannot be is refused`(bar: UInt64) {
        var rig = Rig()
        rig.feed(memory(location: .bar(bar)))
        #expect(rig.refusals == ["vpci/bar"])
        rig.feed(.mapped, queues(0..<2, of: 2), on)
        #expect(!rig.hasConnected)
    }

    @Test func `HI-G3: a window of no size, or that wraps, is refused`() {
        var rig = Rig()
        rig.feed(memory(windowSize: 0), memory(windowOffset: .max - 4095, windowSize: 8192))
        #expect(rig.refusals == ["vpci/bar", "vpci/bar"])
    }

    @Test func `HI-G3: a BAR that cannot be mapped leaves us disconnected`() {
        var rig = Rig()
        rig.feed(memory(), .mappingFailed(Refusal("vpci/bar", "absent")))
        rig.feed(queues(0..<2, of: 2), on)
        #expect(!rig.hasConnected)
        #expect(rig.refusals == ["vpci/bar", "vpci/order", "vpci/order"])
    }

    @Test func `HI-G4: memory information by address is refused and never mapped`() {
        var rig = Rig()
        rig.feed(memory(location: .address(0x7f00_0000_0000)))
        #expect(rig.refusals == ["vpci/gva"])
        #expect(rig.state.phase == .idle)
    }

    @Test func `HI-G5: more queues than we serve are refused`() {
        var rig = Rig()
        rig.feed(memory(), .mapped, queues(0..<2, of: 100), on)
        #expect(rig.refusals == ["vpci/vq-count", "vpci/vq-count"])
        #expect(!rig.hasConnected)
    }

    @Test func `HI-G5: ON while queues are missing is refused`() {
        var rig = Rig()
        rig.feed(memory(), .mapped, queues(0..<2, of: 4), on)
        #expect(rig.refusals == ["vpci/vq-count"])
    }

    @Test func `HI-G5: a queue described twice, or not announced, is refused`() {
        var rig = Rig()
        rig.feed(memory(), .mapped, queues(0..<2, of: 4), queues(1..<3, of: 4))
        rig.feed(queues(1..<3, of: 2))
        rig.feed(queues(0..<2, of: 4), queues(2..<3, of: 3))
        #expect(rig.refusals == ["vpci/vq-count", "vpci/vq-count", "vpci/vq-count"])
    }

    @Test func `VPN-M-07: an odd number of queues is taken, its last being the control queue`() {
        var rig = Rig()
        rig.feed(memory(), .mapped, queues(0..<5, of: 5), on)
        #expect(rig.hasConnected)
    }

    @Test func `HI-G9: every logging message is refused, as there is no log`() {
        for logging in [.on, .off, .base(address: .max, size: .max)] as [DirtyPageLogging] {
            for var rig in Rig.everyState() {
                let before = rig.state
                rig.feed(.frame(DeviceMessage.logging(logging).frame))
                #expect(rig.state == before)
                #expect(rig.refusals.allSatisfy { $0 == "log/range" })
            }
        }
    }

    @Test func `HI-G10: information that was cut is not used and asked for again once`() {
        var rig = Rig()
        let cut = Array(DeviceMessage.memory(information()).frame.dropLast())
        rig.feed(.frame(cut), .frame(cut), .frame(cut))
        #expect(rig.refusals == ["vpci/cut", "vpci/cut", "vpci/cut"])
        #expect(rig.actions.count { $0 == .sendOff } == 1)
        // The answer to our OFF, then the device begins again.
        rig.feed(off, memory(), .mapped, queues(0..<2, of: 2), on)
        #expect(rig.hasConnected)
        #expect(rig.refusals.count == 3)
    }

    @Test func `HI-G10: a cut message while ON does not end the connection`() {
        var rig = Rig.connected()
        let before = rig.state
        rig.feed(.frame([2, 0, 2, 0, 0]))
        #expect(rig.refusals == ["vpci/cut"])
        #expect(rig.state == before)
    }

    @Test func `any frames in any order: touched only between ON and OFF, threads let go first`() {
        var generator = SystemRandomNumberGenerator()
        let frames: [DriverState.Event] = [
            memory(), memory(windowSize: 0), .mapped, queues(0..<2, of: 2), queues(0..<1, of: 2),
            on, off, .frame([]), .frame([1, 0, 0]), .mappingFailed(Refusal("x", "")), .stop,
            .offTimeout, .needsReset, .deviceGone, .started,
        ]
        for _ in 0..<500 {
            var rig = Rig()
            var isTouching = false
            for _ in 0..<100 {
                guard let event = frames.randomElement(using: &generator) else { return }
                rig.forget()
                rig.feed(event)
                for action in rig.actions {
                    switch action {
                    case .connect:
                        #expect(!isTouching)
                        isTouching = true
                    case .quiesce: isTouching = false
                    case .release, .sendOff, .reset, .map: #expect(!isTouching)
                    default: break
                    }
                }
            }
        }
    }
}

private let on = DriverState.Event.frame(DeviceMessage.connection(isOn: true).frame)
private let off = DriverState.Event.frame(DeviceMessage.connection(isOn: false).frame)

private func information(
    location: PeerMemoryInformation.Location = .bar(2),
    windowOffset: UInt64 = 0x1000,
    windowSize: UInt64 = 0x10000,
    generation: UInt32 = 1
) -> PeerMemoryInformation {
    PeerMemoryInformation(
        location: location,
        windowOffset: windowOffset,
        windowSize: windowSize,
        generation: generation,
        regions: [.init(guestAddress: 0, size: 0x4000, userAddress: 0, barOffset: 0x1000)]
    )
}

private func memory(
    location: PeerMemoryInformation.Location = .bar(2),
    windowOffset: UInt64 = 0x1000,
    windowSize: UInt64 = 0x10000,
    generation: UInt32 = 1
) -> DriverState.Event {
    .frame(
        DeviceMessage.memory(
            information(
                location: location,
                windowOffset: windowOffset,
                windowSize: windowSize,
                generation: generation
            )
        ).frame
    )
}

private func table(generation: UInt32) -> RegionTable {
    guard let table = try? RegionTable(checking: information(generation: generation)) else {
        preconditionFailure("the table of these tests is good")
    }
    return table
}

private func entries(_ indices: Range<UInt16>) -> [PeerQueueInformation.Queue] {
    indices.map {
        .init(
            index: $0,
            size: 8,
            flags: [.enabled, .started],
            notifyIndex: $0,
            descriptorArea: 0,
            driverArea: 0x1000,
            deviceArea: 0x2000
        )
    }
}

private func queues(_ indices: Range<UInt16>, of total: UInt32) -> DriverState.Event {
    .frame(
        DeviceMessage.queues(PeerQueueInformation(total: total, queues: entries(indices))).frame
    )
}

private struct Rig {
    var state = DriverState(maximumQueues: 9, features: [.version1, .eventIndex])
    var actions: [DriverState.Action] = []

    init() {
        feed(.started)
    }

    static func connected() -> Rig {
        var rig = Rig()
        rig.feed(memory(), .mapped, queues(0..<2, of: 2), on)
        rig.forget()
        return rig
    }

    static func everyState() -> [Rig] {
        let connected = connected()
        let steps: [[DriverState.Event]] = [
            [], [memory()], [memory(), .mapped], [memory(), .mapped, .stop], [.stop], [.deviceGone],
        ]
        return [connected]
            + steps.map { events in
                var rig = Rig()
                for event in events { rig.feed(event) }
                rig.forget()
                return rig
            }
    }

    var hasConnected: Bool {
        actions.contains { if case .connect = $0 { true } else { false } }
    }

    var refusals: [String] {
        actions.compactMap {
            if case .report(.refused(let refusal)) = $0 { refusal.id } else { nil }
        }
    }

    mutating func feed(_ events: DriverState.Event...) {
        for event in events { actions += state.handle(event) }
    }

    mutating func forget() { actions = [] }
}
