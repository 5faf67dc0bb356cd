import Testing

@testable import vhost_pci

@Suite struct TrafficFrameTests {
    private func sample(length: Int = 131) -> TrafficFrame {
        TrafficFrame(
            destination: MACAddress(local: 2),
            source: MACAddress(local: 1),
            kind: .payload,
            sequence: 0x0102_0304_0506,
            received: 77,
            sentAt: 123_456_789,
            length: length
        )
    }

    private func bytes(_ frame: TrafficFrame) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xaa, count: 2048)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe frame.write(into: $0) }
        return Array(bytes.prefix(count))
    }

    private func read(_ bytes: [UInt8]) throws(TrafficFrame.Damage) -> TrafficFrame {
        let result = unsafe bytes.withUnsafeBytes {
            raw -> Result<TrafficFrame, TrafficFrame.Damage> in
            do throws(TrafficFrame.Damage) {
                return .success(unsafe try TrafficFrame(reading: raw))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    @Test(arguments: [60, 61, 64, 127, 1518])
    func `a frame of any length is read back as written`(length: Int) throws {
        let frame = sample(length: length)
        let encoded = bytes(frame)
        #expect(encoded.count == length)
        #expect(try read(encoded) == frame)
    }

    @Test func `a change of any byte behind the addresses is noticed`() {
        let good = bytes(sample())
        for index in 12..<good.count where index != 15 && index != 22 && index != 23 {
            var bad = good
            bad[index] ^= 0x10
            #expect(throws: TrafficFrame.Damage.self, "byte \(index)") { try read(bad) }
        }
    }

    @Test func `a cut or lengthened frame is noticed`() {
        let good = bytes(sample())
        #expect(throws: TrafficFrame.Damage.length) { try read(Array(good.dropLast())) }
        #expect(throws: TrafficFrame.Damage.length) { try read(good + [0]) }
        #expect(throws: TrafficFrame.Damage.short) { try read(Array(good.prefix(59))) }
        #expect(throws: TrafficFrame.Damage.short) { try read([]) }
    }

    @Test func `an echo that swaps the addresses does no damage`() throws {
        let good = bytes(sample())
        let echoed = Array(good[6..<12] + good[0..<6] + good[12...])
        let frame = try read(echoed)
        #expect(frame.destination == MACAddress(local: 1))
        #expect(frame.source == MACAddress(local: 2))
    }

    @Test func `a frame that does not fit is not written`() {
        var small = [UInt8](repeating: 0, count: 100)
        let count = unsafe small.withUnsafeMutableBytes { unsafe sample().write(into: $0) }
        #expect(count == 0)
        #expect(small.allSatisfy { $0 == 0 })
    }
}
