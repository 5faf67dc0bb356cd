import Testing

@testable import PollEngine

@Suite struct MACTableTests {
    static func table(
        capacity: Int = 256,
        quota: Int = 64,
        maximumAge: UInt32 = 100
    ) -> MACTable {
        MACTable(
            capacity: capacity,
            portLimit: 8,
            quota: quota,
            maximumAge: maximumAge,
            key: 0x1234_5678_9ABC_DEF1
        )
    }

    @Test func `an address is found at the port where it was last heard`() {
        var table = Self.table()
        #expect(table.lookup(0x02, now: 0) == -1)
        #expect(table.learn(0x02, port: 3, now: 0) == .known)
        #expect(table.lookup(0x02, now: 0) == 3)
        #expect(table.learn(0x02, port: 5, now: 1) == .known)
        #expect(table.lookup(0x02, now: 1) == 5)
        #expect(table.count(of: 3) == 0)
        #expect(table.count(of: 5) == 1)
    }

    @Test func `an address that is not heard any more is forgotten`() {
        var table = Self.table()
        _ = table.learn(0x02, port: 1, now: 10)
        #expect(table.lookup(0x02, now: 110) == 1)
        #expect(table.lookup(0x02, now: 111) == -1)
        #expect(table.learn(0x02, port: 1, now: 111) == .known)
        #expect(table.lookup(0x02, now: 112) == 1)
        #expect(table.count(of: 1) == 1)
    }

    @Test func `of a port that is forgotten nothing is found, and what stands behind it is`() {
        var table = Self.table(capacity: 64, quota: 64)
        for address in 1...16 as ClosedRange<UInt64> {
            #expect(table.learn(address << 8, port: Int(address % 2), now: 500) == .known)
        }
        table.forget(port: 1, now: 500)
        table.forget(port: 7, now: 500)
        table.forget(port: 8, now: 500)
        #expect(table.count(of: 1) == 0 && table.count(of: 0) == 8)
        for address in 1...16 as ClosedRange<UInt64> {
            #expect(table.lookup(address << 8, now: 500) == (address % 2 == 0 ? 0 : -1))
        }
        #expect(table.lookup(0, now: 500) == -1)
        #expect(table.learn(1 << 8, port: 3, now: 501) == .known)
        #expect(table.lookup(1 << 8, now: 501) == 3)
        #expect(table.count(of: 3) == 1)
    }

    @Test func `ages are right when the tick wraps`() {
        var table = Self.table()
        _ = table.learn(0x02, port: 1, now: UInt32.max - 5)
        #expect(table.lookup(0x02, now: 20) == 1)
        #expect(table.lookup(0x02, now: 200) == -1)
    }

    @Test func `multicast, broadcast and zero are never learned`() {
        var table = Self.table()
        #expect(table.learn(0xFFFF_FFFF_FFFF, port: 1, now: 0) == .unusable)
        #expect(table.learn(0x01, port: 1, now: 0) == .unusable)
        #expect(table.learn(0, port: 1, now: 0) == .unusable)
        #expect(table.count(of: 1) == 0)
        #expect(table.lookup(0xFFFF_FFFF_FFFF, now: 0) == -1)
    }

    @Test func `a port outside the table is refused`() {
        var table = Self.table()
        #expect(table.learn(0x02, port: 8, now: 0) == .unusable)
        #expect(table.learn(0x02, port: -1, now: 0) == .unusable)
        #expect(table.count(of: 8) == 0)
        #expect(table.lookup(0x02, now: 0) == -1)
    }

    @Test func `a port that invents addresses fills its own share only`() {
        var table = Self.table(capacity: 1024, quota: 64)
        for number in 0..<10_000 {
            _ = table.learn(UInt64(number) << 1 | 0x1_0000_0000, port: 0, now: 0)
        }
        #expect(table.count(of: 0) == 64)
        #expect(table.learn(0xABCDE, port: 1, now: 0) == .known)
        #expect(table.lookup(0xABCDE, now: 0) == 1)
    }

    @Test func `a full window refuses the newcomer and keeps who is there`() {
        var table = Self.table(capacity: 64, quota: 1000)
        var known: [UInt64] = []
        for number in 1...2000 {
            let address = UInt64(number) << 1
            if table.learn(address, port: number % 8, now: 0) == .known { known.append(address) }
        }
        #expect(known.count <= 64)
        #expect(known.count > 16)
        for address in known {
            #expect(table.lookup(address, now: 0) == Int(address >> 1) % 8)
        }
    }

    @Test func `HI-I9: ports that invent addresses do not keep out who has few`() {
        var table = Self.table(capacity: 256, quota: 64)
        for number in 0..<40_000 {
            _ = table.learn(UInt64(number) << 1 | 0x1_0000_0000, port: number % 7, now: 0)
        }
        for number in 1...8 {
            let address = UInt64(number) << 1
            #expect(table.learn(address, port: 7, now: 1) == .known)
            #expect(table.lookup(address, now: 1) == 7)
        }
        #expect(table.count(of: 7) == 8)
        #expect((0..<8).reduce(0) { $0 + table.count(of: $1) } <= 256)
    }

    @Test func `HI-I8: a port that has used up its share replaces its own entries`() {
        var table = Self.table(capacity: 64, quota: 32)
        for number in 1...500 { _ = table.learn(UInt64(number) << 1, port: 0, now: 0) }
        #expect(table.count(of: 0) == 32)
        // The next peer at the same socket, a moment later.
        var found = 0
        for number in 1001...1020 {
            let address = UInt64(number) << 1
            guard table.learn(address, port: 0, now: 1) == .known else { continue }
            if table.lookup(address, now: 1) == 0 { found += 1 }
        }
        #expect(found >= 15)
        #expect(table.count(of: 0) == 32)
    }

    @Test func `aged entries make room again and free their port's quota`() {
        var table = Self.table(capacity: 64, quota: 1000)
        for number in 1...2000 { _ = table.learn(UInt64(number) << 1, port: 0, now: 0) }
        let before = table.count(of: 0)
        var taken = 0
        for number in 5000...9000
        where table.learn(UInt64(number) << 1, port: 1, now: 500) == .known {
            taken += 1
        }
        #expect(taken > 16)
        #expect(table.count(of: 1) == taken)
        #expect(table.count(of: 0) + table.count(of: 1) <= 64)
        #expect(table.count(of: 0) < before)
    }

    @Test func `a move beyond the new port's quota is refused and the old entry stays`() {
        var table = Self.table(quota: 1)
        _ = table.learn(0x02, port: 1, now: 0)
        _ = table.learn(0x04, port: 2, now: 0)
        #expect(table.learn(0x02, port: 2, now: 0) == .full)
        #expect(table.lookup(0x02, now: 0) == 1)
    }

    @Test func `a table keeps what a dictionary keeps, as long as nothing is refused`() {
        var table = Self.table(capacity: 4096, quota: 4096)
        var model: [UInt64: Int] = [:]
        var random = SplitMix(state: 7)
        for _ in 0..<20_000 {
            let address = (random.next() % 500 + 1) << 1
            let port = Int(random.next() % 8)
            if table.learn(address, port: port, now: 0) == .known { model[address] = port }
            let other = (random.next() % 600 + 1) << 1
            #expect(table.lookup(other, now: 0) == model[other] ?? -1)
        }
        #expect(model.count == 500)
    }
}

/// A small repeatable generator.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
