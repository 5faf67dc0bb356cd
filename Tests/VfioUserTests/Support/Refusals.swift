import Glibc
import HostSystem
import PCI

/// The id of the refusal that `work` throws; `nil` when it throws something else, or nothing.
func refusal(_ work: () throws -> Void) -> String? {
    do {
        try work()
        return nil
    } catch PCIError.refused(let refusal) {
        return refusal.id
    } catch {
        return nil
    }
}

/// The error number that `work` throws; `nil` when it throws something else, or nothing.
func errorNumber(_ work: () throws -> Void) -> Int32? {
    do {
        try work()
        return nil
    } catch PCIError.system(let error) {
        return error.errno.rawValue
    } catch {
        return nil
    }
}

/// Lets time pass.
func pauseMilliseconds(_ count: UInt32) { usleep(count * 1000) }
