import RingSupport
import Testing
import Virtqueue

@testable import PollEngine

/// Long random lives of a queue pair, beside a model that is two lists of frames.
@Suite struct DevicePortModelTests {
    private struct Model {
        /// Delivered by the device and not seen by the driver.
        var incoming: [[UInt8]] = []
        /// Sent by the driver and not taken by the device.
        var outgoing: [[UInt8]] = []
        /// Taken by the device and not given back.
        var kept: [UInt16] = []
        var number = 0

        mutating func frame(_ dice: inout Dice) -> [UInt8] {
            number += 1
            let length = 14 + Int(dice.next() % 200)
            return (0..<length).map { UInt8(truncatingIfNeeded: $0 &+ number) }
        }
    }

    @Test(arguments: [1, 2, 3, 4], [QueueFeatures(), QueueFeatures.eventIndex])
    func `frames arrive and leave as in the model, whatever the order of returns`(
        seed: UInt64,
        features: QueueFeatures
    ) throws {
        var dice = Dice(seed)
        let rig = try DeviceRig(size: seed % 2 == 0 ? 8 : 32, features: features)
        var port = try DevicePort(rig.pair)
        var model = Model()
        for _ in 0..<20_000 {
            switch dice.next() % 6 {
            case 0: deliver(&model, rig, &dice)
            case 1: deliverPieces(&model, rig, &dice)
            case 2: receive(&model, &port, Int(1 + dice.next() % 8))
            case 3: try send(&model, &port, &dice)
            case 4: take(&model, rig)
            default: giveBack(&model, rig, &dice)
            }
            if port.error != nil { break }
        }
        #expect(port.error == nil)
        #expect(port.counters.drops == [:])
        receive(&model, &port, 32)
        #expect(model.incoming.isEmpty)
        // Both indices went round.
        #expect(port.counters.receivedPackets > 2000)
        #expect(port.counters.transmittedPackets > 1000)
        #expect(rig.posted == Int(rig.pair.receive.size))
    }

    private func deliver(_ model: inout Model, _ rig: DeviceRig, _ dice: inout Dice) {
        guard rig.posted > 0 else { return }
        let frame = model.frame(&dice)
        rig.deliver(frame: frame)
        model.incoming.append(frame)
    }

    private func deliverPieces(_ model: inout Model, _ rig: DeviceRig, _ dice: inout Dice) {
        let count = Int(2 + dice.next() % 3)
        guard rig.posted >= count else { return }
        let pieces = (0..<count).map { _ in model.frame(&dice) }
        rig.deliver(pieces: pieces)
        model.incoming.append(pieces.flatMap { $0 })
    }

    private func receive(_ model: inout Model, _ port: inout DevicePort, _ limit: Int) {
        var burst = ChainBurst(longestChain: 64)
        _ = port.receive(into: &burst, limit: limit)
        for index in 0..<burst.count {
            #expect(model.incoming.first == bytes(of: burst, index))
            model.incoming.removeFirst()
        }
        port.finishReceive()
    }

    private func send(
        _ model: inout Model,
        _ port: inout DevicePort,
        _ dice: inout Dice
    ) throws {
        let frames = (0..<(1 + dice.next() % 4)).map { _ in model.frame(&dice) }
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 64)
        defer { unsafe memory.deallocate() }
        let burst = unsafe ChainBurst.of(frames, in: memory)
        let done = port.transmit(burst, from: 0, count: frames.count)
        port.finishTransmit()
        model.outgoing += frames.prefix(done)
    }

    private func take(_ model: inout Model, _ rig: DeviceRig) {
        guard let (head, bytes) = rig.keepTransmitted() else { return }
        #expect(model.outgoing.first == Array(bytes.dropFirst(12)))
        #expect(bytes.prefix(12).allSatisfy { $0 == 0 })
        model.outgoing.removeFirst()
        model.kept.append(head)
    }

    private func giveBack(_ model: inout Model, _ rig: DeviceRig, _ dice: inout Dice) {
        guard !model.kept.isEmpty else { return }
        let index = Int(dice.next() % UInt64(model.kept.count))
        rig.transmit.use(UInt32(model.kept.remove(at: index)))
    }
}
